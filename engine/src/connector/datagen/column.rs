//! The rule of one column, from its options to its values.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use xxhash_rust::xxh3::xxh3_64;

use crate::connector::generator::{mix, nth, texts};
use crate::error::{Error, Result};
use crate::options::{OptionSpec, Options, Takes};
use crate::time::from_micros;

/// Random numbers are at most this by default, so that sums of them stay small.
const DEFAULT_MAX: i64 = 1_000_000;
/// Bounds a batch of texts to 32 MB.
const MAX_LENGTH: usize = 4096;

const KIND: OptionSpec =
    OptionSpec::new("kind", Takes::OneOf(&["random", "sequence"]), "sequence", "how the values of a column are made")
        .otherwise("sequence for timestamps and dates, else random");
const MIN: OptionSpec =
    OptionSpec::new("min", Takes::Text, "10", "the smallest random value").otherwise("0 (times: the year 2024)");
const MAX: OptionSpec =
    OptionSpec::new("max", Takes::Text, "20", "the largest random value, which is included, but for floats")
        .otherwise("1000000 (floats: 1; times: the year 2024)");
const START: OptionSpec =
    OptionSpec::new("start", Takes::Text, "100", "where a sequence begins").otherwise("0 (times: 2024-01-01)");
const END: OptionSpec =
    OptionSpec::new("end", Takes::Text, "200", "where a sequence ends; the first to end ends the stream")
        .otherwise("no end");
const LENGTH: OptionSpec = OptionSpec::new("length", Takes::Whole, "20", "of a random text").or("10");
const NULL_RATE: OptionSpec = OptionSpec::new("null_rate", Takes::Number, "0.1", "the share of nulls").or("0");

/// The options of a column as lists have them.
pub(super) fn listed() -> [OptionSpec; 7] {
    let of = |name, spec| OptionSpec { name, ..spec };
    [
        of("fields.<column>.kind", KIND),
        of("fields.<column>.min", MIN),
        of("fields.<column>.max", MAX),
        of("fields.<column>.start", START),
        of("fields.<column>.end", END),
        of("fields.<column>.length", LENGTH),
        of("fields.<column>.null_rate", NULL_RATE),
    ]
}

const FIRST_TIME: &str = "2024-01-01";
const LAST_TIME: &str = "2024-12-31";

/// How event time goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Rows a second of event time.
    pub(super) event_rate: f64,
}

/// A column: what its values are by row number.
#[derive(Clone, Debug)]
pub(super) struct Column {
    name: String,
    data_type: DataType,
    /// Starts its random numbers.
    state: u64,
    /// The share of nulls.
    null_rate: f64,
    rule: Rule,
    /// How many rows there are values for.
    rows: Option<u64>,
}

/// The values before they are cast to the column's type.
#[derive(Clone, Debug)]
enum Rule {
    /// `start + row`.
    Sequence {
        start: i64,
    },
    SequenceFloat {
        start: f64,
    },
    SequenceDecimal {
        start: i128,
        step: i128,
    },
    SequenceText {
        start: i64,
    },
    /// Microseconds of a time that rises by a second in `rate` rows.
    Rising {
        start: i64,
        rate: f64,
    },
    /// `span` values from `min` on.
    Uniform {
        min: i64,
        span: u128,
    },
    UniformFloat {
        min: f64,
        width: f64,
    },
    UniformDecimal {
        min: i128,
        span: u128,
    },
    Coin,
    Letters {
        length: usize,
    },
}

/// What a type is made as.
enum Family {
    Whole,
    Float,
    Decimal(u8, i8),
    Time,
    Text,
    Truth,
}

impl Family {
    fn of(data_type: &DataType) -> Option<Family> {
        Some(match data_type {
            t if t.is_integer() => Family::Whole,
            DataType::Float32 | DataType::Float64 => Family::Float,
            DataType::Decimal128(precision, scale) => Family::Decimal(*precision, *scale),
            DataType::Timestamp(..) | DataType::Date32 => Family::Time,
            DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => Family::Text,
            DataType::Boolean => Family::Truth,
            _ => return None,
        })
    }
}

impl Column {
    /// The column `field` with the options of its own.
    pub(super) fn read(field: &Field, mut options: Options, seed: u64, clock: Clock) -> Result<Column> {
        let Some(family) = Family::of(field.data_type()) else {
            let (name, owner, t) = (field.name(), options.owner(), field.data_type());
            return Err(Error::unsupported(format!(
                "connector 'datagen' cannot make column \"{name}\" of {owner}: {t}"
            ))
            .with_hint("It makes numbers, texts, booleans, timestamps and dates."));
        };
        let null_rate = options.value::<f64>(&NULL_RATE, "a number")?.unwrap_or_default();
        if !(0.0..=1.0).contains(&null_rate) {
            let option = format!("option \"fields.{}.null_rate\" of {}", field.name(), options.owner());
            return Err(Error::invalid(format!("{option} is {null_rate}, which is not between 0 and 1")));
        }
        let sequence = match options.choice(&KIND)? {
            Some(kind) => kind == "sequence",
            None => matches!(family, Family::Time),
        };
        let mut bounds = Bounds { options, name: field.name(), data_type: field.data_type() };
        let (rule, rows) = match sequence {
            true => bounds.sequence(&family, clock)?,
            false => (bounds.random(&family)?, None),
        };
        bounds.options.finish()?;
        let name = field.name().clone();
        let state = mix(seed ^ xxh3_64(name.as_bytes()));
        Ok(Column { name, data_type: field.data_type().clone(), state, null_rate, rule, rows })
    }

    /// How many rows there are values for, if they end.
    pub(super) fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// The values of `rows`.
    pub(super) fn make(&self, rows: Range<u64>) -> Result<ArrayRef> {
        let state = self.state;
        let nulls = self.nulls(&rows);
        let made = match self.rule {
            Rule::Sequence { start } => self.whole(rows, nulls, |row| start.wrapping_add(row as i64)),
            Rule::SequenceFloat { start } => floats(rows, nulls, |row| start + row as f64),
            Rule::SequenceDecimal { start, step } => {
                self.decimals(rows, nulls, |row| start.saturating_add(step.saturating_mul(row.into())))
            }
            Rule::SequenceText { start } => texts(rows, 20, nulls, |row, bytes| {
                // Writing to a vector does not fail.
                let _ = write!(bytes, "{}", start.wrapping_add(row as i64));
            }),
            Rule::Rising { start, rate } => self.rising(rows, nulls, start, rate),
            Rule::Uniform { min, span } => self.whole(rows, nulls, |row| {
                let above = (u128::from(nth(state, row)) * span) >> 64;
                min.wrapping_add(above as u64 as i64)
            }),
            Rule::UniformFloat { min, width } => floats(rows, nulls, |row| min + width * unit(nth(state, row))),
            Rule::UniformDecimal { min, span } => self.decimals(rows, nulls, |row| {
                let (high, low) = (nth(state, row), nth(!state, row));
                let x = u128::from(high) << 64 | u128::from(low);
                min.wrapping_add((x % span) as i128)
            }),
            Rule::Coin => {
                let values = BooleanBuffer::from_iter(rows.map(|row| nth(state, row) >> 63 == 1));
                Ok(Arc::new(BooleanArray::new(values, nulls)) as ArrayRef)
            }
            Rule::Letters { length } => {
                texts(rows, length, nulls, |row, bytes| letters(nth(state, row), length, bytes))
            }
        }?;
        self.cast(made)
    }

    fn nulls(&self, rows: &Range<u64>) -> Option<NullBuffer> {
        // Not the numbers that make the values.
        let state = mix(self.state);
        let valid = |row| unit(nth(state, row)) >= self.null_rate;
        (self.null_rate > 0.0).then(|| NullBuffer::new(BooleanBuffer::from_iter(rows.clone().map(valid))))
    }

    fn whole(&self, rows: Range<u64>, nulls: Option<NullBuffer>, value: impl Fn(u64) -> i64) -> Result<ArrayRef> {
        let values = Arc::new(Int64Array::new(rows.map(value).collect(), nulls));
        match self.data_type {
            DataType::Date32 => self.cast_to(values, &DataType::Int32),
            _ => Ok(values),
        }
    }

    fn rising(&self, rows: Range<u64>, nulls: Option<NullBuffer>, start: i64, rate: f64) -> Result<ArrayRef> {
        let micros = |row: u64| start.saturating_add((row as f64 * 1e6 / rate) as i64);
        match self.data_type {
            DataType::Timestamp(unit, _) => self.whole(rows, nulls, |row| from_micros(micros(row), unit)),
            _ => self.whole(rows, nulls, |row| micros(row).div_euclid(86_400_000_000)),
        }
    }

    fn decimals(&self, rows: Range<u64>, nulls: Option<NullBuffer>, value: impl Fn(u64) -> i128) -> Result<ArrayRef> {
        let values = Decimal128Array::new(rows.map(value).collect(), nulls).with_data_type(self.data_type.clone());
        values.validate_decimal_precision(values.precision()).map_err(|e| self.out_of_range(e))?;
        Ok(Arc::new(values))
    }

    fn cast(&self, made: ArrayRef) -> Result<ArrayRef> {
        match made.data_type() == &self.data_type {
            true => Ok(made),
            false => self.cast_to(made, &self.data_type),
        }
    }

    fn cast_to(&self, made: ArrayRef, to: &DataType) -> Result<ArrayRef> {
        cast_with_options(&made, to, &STRICT).map_err(|e| self.out_of_range(e))
    }

    fn out_of_range(&self, error: ArrowError) -> Error {
        Error::from(error).context(format!("column \"{}\"", self.name))
    }
}

/// Values out of range are errors, not nulls.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// Reads the bounds of a column's values.
struct Bounds<'a> {
    options: Options,
    name: &'a str,
    data_type: &'a DataType,
}

impl Bounds<'_> {
    fn sequence(&mut self, family: &Family, clock: Clock) -> Result<(Rule, Option<u64>)> {
        match family {
            Family::Whole | Family::Text => {
                let number = match family {
                    Family::Whole => self.data_type.clone(),
                    _ => DataType::Int64,
                };
                let start = self.whole(&START, &number)?.unwrap_or(0);
                let end = self.whole(&END, &number)?;
                let rows = end.map(|end| (i128::from(end) - i128::from(start) + 1).max(0) as u64);
                let rule = match family {
                    Family::Whole => Rule::Sequence { start },
                    _ => Rule::SequenceText { start },
                };
                Ok((rule, rows))
            }
            Family::Float => {
                let start = self.float(&START)?.unwrap_or(0.0);
                let rows = self.float(&END)?.map(|end| (end - start + 1.0) as u64);
                Ok((Rule::SequenceFloat { start }, rows))
            }
            Family::Decimal(_, scale) => {
                let step = 10i128.checked_pow((*scale).try_into().unwrap_or(0)).unwrap_or(1);
                let start = self.decimal(&START)?.unwrap_or(0);
                let rows = self.decimal(&END)?.map(|end| (end.saturating_sub(start) / step + 1).max(0) as u64);
                Ok((Rule::SequenceDecimal { start, step }, rows))
            }
            Family::Time => {
                let zone = match self.data_type {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone);
                let (start, rate) = (self.time(&START, FIRST_TIME, &micros)?, clock.event_rate);
                let end = self.options.text(&END).map(|end| self.parsed_whole(&END, end, &micros)).transpose()?;
                let rows = end.map(|end| (end.saturating_sub(start) as f64 * rate / 1e6 + 1.0) as u64);
                Ok((Rule::Rising { start, rate }, rows))
            }
            Family::Truth => Err(Error::unsupported(format!("{} is a boolean and has no sequence", self.column()))
                .with_hint(format!("Leave fields.{}.kind out.", self.name))),
        }
    }

    fn random(&mut self, family: &Family) -> Result<Rule> {
        match family {
            Family::Whole => {
                let most = match self.data_type {
                    DataType::Int8 => i8::MAX.into(),
                    DataType::UInt8 => u8::MAX.into(),
                    DataType::Int16 => i16::MAX.into(),
                    DataType::UInt16 => u16::MAX.into(),
                    _ => DEFAULT_MAX,
                };
                let number = self.data_type.clone();
                let min = self.whole(&MIN, &number)?.unwrap_or(0);
                let max = self.whole(&MAX, &number)?.unwrap_or(most.max(min));
                self.uniform(min, max)
            }
            Family::Time => {
                let min = self.time(&MIN, FIRST_TIME, self.data_type)?;
                let max = self.time(&MAX, LAST_TIME, self.data_type)?;
                self.uniform(min, max)
            }
            Family::Float => {
                let min = self.float(&MIN)?.unwrap_or(0.0);
                let width = self.float(&MAX)?.unwrap_or(min + 1.0) - min;
                if width < 0.0 {
                    return Err(self.reversed());
                }
                Ok(Rule::UniformFloat { min, width })
            }
            Family::Decimal(precision, scale) => {
                let most = 10i128.checked_pow((*precision).into()).unwrap_or(i128::MAX) - 1;
                let step = 10i128.checked_pow((*scale).try_into().unwrap_or(0)).unwrap_or(1);
                let min = self.decimal(&MIN)?.unwrap_or(0);
                let default = most.min(step.saturating_mul(DEFAULT_MAX.into())).max(min);
                let max = self.decimal(&MAX)?.unwrap_or(default);
                if max < min {
                    return Err(self.reversed());
                }
                Ok(Rule::UniformDecimal { min, span: max.wrapping_sub(min) as u128 + 1 })
            }
            Family::Text => {
                let length = self.options.value::<usize>(&LENGTH, "a whole number")?.unwrap_or_default();
                if length > MAX_LENGTH {
                    let column = self.column();
                    return Err(Error::invalid(format!("{column} has length {length}, which is above {MAX_LENGTH}")));
                }
                Ok(Rule::Letters { length })
            }
            Family::Truth => Ok(Rule::Coin),
        }
    }

    fn uniform(&self, min: i64, max: i64) -> Result<Rule> {
        if max < min {
            return Err(self.reversed());
        }
        Ok(Rule::Uniform { min, span: (i128::from(max) - i128::from(min)) as u128 + 1 })
    }

    fn reversed(&self) -> Error {
        Error::invalid(format!("{} has a max below its min", self.column()))
    }

    fn column(&self) -> String {
        format!("column \"{}\" of {}", self.name, self.options.owner())
    }

    fn whole(&mut self, option: &OptionSpec, to: &DataType) -> Result<Option<i64>> {
        self.options.text(option).map(|text| self.parsed_whole(option, text, to)).transpose()
    }

    fn time(&mut self, option: &OptionSpec, default: &str, to: &DataType) -> Result<i64> {
        let text = self.options.text(option).unwrap_or_else(|| default.to_owned());
        self.parsed_whole(option, text, to)
    }

    fn float(&mut self, option: &OptionSpec) -> Result<Option<f64>> {
        let Some(text) = self.options.text(option) else { return Ok(None) };
        Ok(Some(self.parsed(option, text, &DataType::Float64)?.as_primitive::<Float64Type>().value(0)))
    }

    fn decimal(&mut self, option: &OptionSpec) -> Result<Option<i128>> {
        let Some(text) = self.options.text(option) else { return Ok(None) };
        Ok(Some(self.parsed(option, text, self.data_type)?.as_primitive::<Decimal128Type>().value(0)))
    }

    /// Reads `text` as type `to`, and that as the whole number it is stored as.
    fn parsed_whole(&self, option: &OptionSpec, text: String, to: &DataType) -> Result<i64> {
        let wide = |value: &ArrayRef| match to {
            DataType::Date32 => {
                cast_with_options(&cast_with_options(value, &DataType::Int32, &STRICT)?, &DataType::Int64, &STRICT)
            }
            _ => cast_with_options(value, &DataType::Int64, &STRICT),
        };
        let value = self.parsed(option, text, to)?;
        let value = wide(&value).map_err(|e| Error::from(e).context(self.column()))?;
        Ok(value.as_primitive::<Int64Type>().value(0))
    }

    fn parsed(&self, option: &OptionSpec, text: String, to: &DataType) -> Result<ArrayRef> {
        let plain = if to.is_numeric() { text.replace('_', "") } else { text.clone() };
        let array: ArrayRef = Arc::new(StringArray::from(vec![plain]));
        cast_with_options(&array, to, &STRICT).map_err(|e| {
            let option = option.name;
            let what = format!("option \"fields.{}.{option}\" of {} is '{text}'", self.name, self.options.owner());
            Error::invalid(format!("{what}, which is not {}", shown(to))).with_source(e)
        })
    }
}

/// What a bound of type `to` is in words.
fn shown(to: &DataType) -> &'static str {
    match to {
        DataType::Timestamp(..) | DataType::Date32 => "a time",
        t if t.is_integer() => "a whole number in the range of the column",
        _ => "a number in the range of the column",
    }
}

/// A random number as one of `0.0..1.0`.
fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// Appends `length` letters, eight from each random number.
fn letters(state: u64, length: usize, bytes: &mut Vec<u8>) {
    for i in (0..length).step_by(8) {
        let letters = nth(state, i as u64).to_le_bytes().map(|b| b'a' + ((u16::from(b) * 26) >> 8) as u8);
        bytes.extend_from_slice(&letters[..(length - i).min(8)]);
    }
}

fn floats(rows: Range<u64>, nulls: Option<NullBuffer>, value: impl Fn(u64) -> f64) -> Result<ArrayRef> {
    Ok(Arc::new(Float64Array::new(rows.map(value).collect(), nulls)))
}
