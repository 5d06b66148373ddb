//! The options of the text formats.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;

use crate::error::{Error, Result};
use crate::format::form::Form;
use crate::format::timestamp::TimeFormat;
use crate::format::values::Escapes;
use crate::options::{OptionSpec, Options, Takes};

/// What becomes of input that cannot be decoded.
pub const ON_ERROR: OptionSpec = OptionSpec::new(
    "on_error",
    Takes::OneOf(&["dead_letter", "fail"]),
    "fail",
    "what cannot be decoded is put aside as a dead letter, or ends the stream",
)
.or("dead_letter");
const TIMESTAMP_FORMAT: OptionSpec = OptionSpec::new(
    "timestamp_format",
    Takes::Text,
    "%m/%d/%Y %H:%M:%S",
    "iso, epoch_s, epoch_ms, epoch_us, or a pattern; numbers in JSON are milliseconds unless it says otherwise",
)
.or("iso");
const NULL_VALUES: OptionSpec =
    OptionSpec::new("null_values", Takes::Text, "NA,-", "texts, between commas, that are null");
const HEADER: OptionSpec =
    OptionSpec::new("header", Takes::Flag, "false", "CSV: the first line names the columns").or("true");
const DELIMITER: OptionSpec =
    OptionSpec::new("delimiter", Takes::Character, ";", "CSV: what stands between fields, or tab").or(",");
const QUOTE: OptionSpec =
    OptionSpec::new("quote", Takes::Character, "'", "CSV: what may stand around a field").or("\"");
const ESCAPE: OptionSpec =
    OptionSpec::new("escape", Takes::Character, "\\", "CSV: what takes the next character literally")
        .otherwise("a doubled quote");
const NEWLINES_IN_VALUES: OptionSpec = OptionSpec::new(
    "newlines_in_values",
    Takes::Flag,
    "true",
    "CSV: quoted values may hold newlines; such a file is read by one task",
)
.or("false");

/// The options of text: those of CSV, of which JSON has some.
pub(crate) const TEXT: &[OptionSpec] =
    &[TIMESTAMP_FORMAT, HEADER, DELIMITER, QUOTE, ESCAPE, NULL_VALUES, NEWLINES_IN_VALUES];

/// Those of them that records have, which need neither a header nor a way to tell where they end.
pub const RECORD_TEXT: &[OptionSpec] = &[TIMESTAMP_FORMAT, DELIMITER, QUOTE, ESCAPE, NULL_VALUES];

/// How JSON lines are read.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonOptions {
    /// How timestamps are written as strings.
    pub text_time: TimeFormat,
    /// What a number in a timestamp column counts.
    pub number_time: TimeUnit,
    /// Strings that are null.
    pub nulls: NullTexts,
    /// What records say.
    pub form: Form,
}

impl Default for JsonOptions {
    fn default() -> Self {
        JsonOptions {
            text_time: TimeFormat::Iso,
            number_time: TimeUnit::Millisecond,
            nulls: NullTexts::default(),
            form: Form::Rows,
        }
    }
}

impl JsonOptions {
    /// Takes the options of JSON out of `options`.
    pub fn take(options: &mut Options) -> Result<Self> {
        let format = time_format(options)?;
        let mut json = JsonOptions { nulls: NullTexts::take(options), ..JsonOptions::default() };
        match format {
            // A number may also be written in quotes.
            Some(TimeFormat::Epoch(unit)) => (json.text_time, json.number_time) = (TimeFormat::Epoch(unit), unit),
            Some(format) => json.text_time = format,
            None => {}
        }
        Ok(json)
    }
}

/// How CSV is read and written.
#[derive(Clone, Debug, PartialEq)]
pub struct CsvOptions {
    /// Whether the first line names the columns.
    pub header: bool,
    /// What stands between fields.
    pub delimiter: u8,
    /// What may stand around a field.
    pub quote: u8,
    /// What takes the next character of a quoted field literally; a doubled quote when `None`.
    pub escape: Option<u8>,
    /// Fields without quotes that are null besides the empty one.
    pub null_values: NullTexts,
    /// How timestamps are written.
    pub time: TimeFormat,
    /// Whether quoted values may have newlines in them; such a file is read by one task.
    pub newlines_in_values: bool,
    /// What records say.
    pub form: Form,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions {
            header: true,
            delimiter: b',',
            quote: b'"',
            escape: None,
            null_values: NullTexts::default(),
            time: TimeFormat::Iso,
            newlines_in_values: false,
            form: Form::Rows,
        }
    }
}

impl CsvOptions {
    /// Takes the options of CSV out of `options`.
    pub fn take(options: &mut Options) -> Result<Self> {
        let (header, newlines_in_values) = (options.flag(&HEADER)?, options.flag(&NEWLINES_IN_VALUES)?);
        Ok(CsvOptions { header, newlines_in_values, ..CsvOptions::take_for_records(options)? })
    }

    /// As [`CsvOptions::take`], for records of one row each.
    ///
    /// Errors when a value is none that its option takes.
    pub fn take_for_records(options: &mut Options) -> Result<Self> {
        let default = CsvOptions::default();
        let csv = CsvOptions {
            header: false,
            delimiter: byte(options, &DELIMITER)?.unwrap_or(default.delimiter),
            quote: byte(options, &QUOTE)?.unwrap_or(default.quote),
            escape: byte(options, &ESCAPE)?,
            null_values: NullTexts::take(options),
            time: time_format(options)?.unwrap_or(default.time),
            newlines_in_values: true,
            form: Form::Rows,
        };
        let special = [csv.delimiter, csv.quote];
        if csv.delimiter == csv.quote || special.iter().any(|b| matches!(b, b'\n' | b'\r')) {
            return Err(Error::invalid(format!("delimiter and quote of {} cannot be told apart", options.owner()))
                .with_hint("Give two different characters that are not line ends."));
        }
        Ok(csv)
    }
}

impl CsvOptions {
    /// How quotes in quoted values are written.
    pub(crate) fn escapes(&self) -> Escapes {
        Escapes::Csv(self.escape.unwrap_or(self.quote))
    }
}

/// Texts that stand for null: the values of option `null_values`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NullTexts(Arc<[String]>);

impl NullTexts {
    fn take(options: &mut Options) -> Self {
        let texts = options.text(&NULL_VALUES).unwrap_or_default();
        NullTexts(texts.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect())
    }

    /// Whether `value` is one of them.
    #[inline]
    pub(crate) fn has(&self, value: &[u8]) -> bool {
        !self.0.is_empty() && self.0.iter().any(|n| n.as_bytes() == value)
    }
}

fn time_format(options: &mut Options) -> Result<Option<TimeFormat>> {
    options.text(&TIMESTAMP_FORMAT).map(|text| TimeFormat::of_option(&text)).transpose()
}

/// An option that is one character.
fn byte(options: &mut Options, spec: &OptionSpec) -> Result<Option<u8>> {
    let Some(text) = options.text(spec) else { return Ok(None) };
    match text.as_bytes() {
        [b] => Ok(Some(*b)),
        b"\\t" => Ok(Some(b'\t')),
        _ if text.eq_ignore_ascii_case("tab") => Ok(Some(b'\t')),
        _ => Err(Error::invalid(format!(
            "option \"{}\" of {} is '{text}', which is not one character",
            spec.name,
            options.owner()
        ))
        .with_hint("Write a single ASCII character, or 'tab'.")),
    }
}
