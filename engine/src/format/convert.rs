//! Columns that came typed, made the declared type: by field name at every depth, and without loss.
//!
//! A value that the type does not hold exactly is a misfit: a fraction where whole numbers are, a number out of
//! range, digits behind the scale of a decimal, a time of day where dates are. Only what the type is there to
//! round is rounded: `REAL` and `DOUBLE` take the nearest to a fraction, and timestamps are cut to their unit.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    StringViewBuilder, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{a_sql_name, sql_name};
use crate::error::{Error, Result};
use crate::hidden::without_hidden;

mod number;

/// A row with a value that its column does not take.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    /// The row, from 0.
    pub row: usize,
    /// Why, with the column's name and the value.
    pub reason: String,
    /// The value as text.
    pub raw: Vec<u8>,
}

/// Casts text by text, and everything else that has no rule of its own.
const SAFE: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

/// Makes `column` what `field` is. Nothing is hidden below its nulls afterwards. Rows that do not fit are null
/// and told of in `misfits`, in no order, a row perhaps more than once; so are nulls where there must be none.
///
/// Errors with `Invalid` when no value of the column's type can be one of the field's.
pub fn convert(column: &ArrayRef, field: &Field, misfits: &mut Vec<Misfit>) -> Result<ArrayRef> {
    let place = Place { name: field.name(), owners: None };
    let column = without_hidden(column)?;
    let converted = Converter { misfits }.value(&column, field.data_type(), place)?;
    if !field.is_nullable() && column.logical_null_count() > 0 {
        let nulls = (0..column.len()).filter(|row| column.is_null(*row) || column.data_type().is_null());
        misfits.extend(nulls.map(|row| Misfit {
            row,
            reason: format!("column \"{}\" is null", field.name()),
            raw: vec![],
        }));
    }
    Ok(converted)
}

/// Finds field `name`, first to the letter, then without regard to case.
pub(crate) fn find_field(fields: &Fields, name: &str) -> Option<usize> {
    let exact = fields.iter().position(|f| f.name() == name);
    exact.or_else(|| fields.iter().position(|f| f.name().eq_ignore_ascii_case(name)))
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The column and the way into it, like `order.items[].price`.
    name: &'a str,
    /// Of the items of lists: the row that each belongs to.
    owners: Option<&'a [usize]>,
}

impl Place<'_> {
    fn row(&self, index: usize) -> usize {
        self.owners.and_then(|owners| owners.get(index).copied()).unwrap_or(index)
    }
}

struct Converter<'a> {
    misfits: &'a mut Vec<Misfit>,
}

impl Converter<'_> {
    fn value(&mut self, array: &ArrayRef, to: &DataType, place: Place<'_>) -> Result<ArrayRef> {
        use DataType as T;
        let from = array.data_type();
        if from == to {
            return Ok(Arc::clone(array));
        }
        match (from, to) {
            (T::Null, _) => Ok(new_null_array(to, array.len())),
            (T::Dictionary(_, plain), _) => self.value(&cast_with_options(array, plain, &SAFE)?, to, place),
            (T::RunEndEncoded(_, plain), _) => {
                self.value(&cast_with_options(array, plain.data_type(), &SAFE)?, to, place)
            }
            (T::ListView(item), _) => self.value(&cast_with_options(array, &T::List(item.clone()), &SAFE)?, to, place),
            (T::LargeListView(item), _) => {
                self.value(&cast_with_options(array, &T::LargeList(item.clone()), &SAFE)?, to, place)
            }
            (T::Struct(_), T::Struct(fields)) => self.structs(array.as_struct(), fields, place),
            (T::FixedSizeList(item, _), T::List(_) | T::LargeList(_)) => {
                self.value(&cast_with_options(array, &T::List(item.clone()), &SAFE)?, to, place)
            }
            (T::FixedSizeList(_, _), T::FixedSizeList(item, size)) => {
                self.fixed_lists(array.as_fixed_size_list(), item, *size, place)
            }
            (T::List(_), T::List(item)) => self.lists::<i32, i32>(array.as_list(), item, place),
            (T::List(_), T::LargeList(item)) => self.lists::<i32, i64>(array.as_list(), item, place),
            (T::LargeList(_), T::List(item)) => self.lists::<i64, i32>(array.as_list(), item, place),
            (T::LargeList(_), T::LargeList(item)) => self.lists::<i64, i64>(array.as_list(), item, place),
            (T::Map(_, _), T::Map(entries, ordered)) => self.maps(array.as_map(), entries, *ordered, place),
            (from, T::Utf8View) if from.is_nested() => Ok(as_json(array)?),
            (from, to) if from.is_nested() || to.is_nested() => Err(unreadable(place.name, from, to)),
            _ => self.scalars(array, to, place),
        }
    }

    fn structs(&mut self, array: &StructArray, fields: &Fields, place: Place<'_>) -> Result<ArrayRef> {
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let Some(i) = find_field(array.fields(), field.name()) else {
                columns.push(new_null_array(field.data_type(), array.len()));
                continue;
            };
            let name = format!("{}.{}", place.name, field.name());
            columns.push(self.value(array.column(i), field.data_type(), Place { name: &name, ..place })?);
        }
        if fields.is_empty() {
            return Ok(Arc::new(StructArray::new_empty_fields(array.len(), array.nulls().cloned())));
        }
        let made = StructArray::try_new(fields.clone(), columns, array.nulls().cloned());
        Ok(Arc::new(made.map_err(|e| required(place.name, e))?))
    }

    /// The values that the rows of a list, a map or the like have, and the row of each.
    fn items(
        &mut self,
        values: &ArrayRef,
        lengths: impl Iterator<Item = usize>,
        to: &DataType,
        place: Place<'_>,
    ) -> Result<ArrayRef> {
        let mut owners = Vec::with_capacity(values.len());
        lengths.enumerate().for_each(|(i, n)| owners.extend(std::iter::repeat_n(place.row(i), n)));
        let name = format!("{}[]", place.name);
        self.value(values, to, Place { name: &name, owners: Some(&owners) })
    }

    fn lists<From: OffsetSizeTrait, To: OffsetSizeTrait>(
        &mut self,
        array: &GenericListArray<From>,
        item: &FieldRef,
        place: Place<'_>,
    ) -> Result<ArrayRef> {
        let (values, lengths) = window(array.offsets(), array.values());
        let values = self.items(&values, lengths.iter().copied(), item.data_type(), place)?;
        let made = GenericListArray::<To>::try_new(
            Arc::clone(item),
            OffsetBuffer::from_lengths(lengths),
            values,
            array.nulls().cloned(),
        );
        Ok(Arc::new(made.map_err(|e| required(place.name, e))?))
    }

    fn fixed_lists(
        &mut self,
        array: &FixedSizeListArray,
        item: &FieldRef,
        size: i32,
        place: Place<'_>,
    ) -> Result<ArrayRef> {
        if array.value_length() != size {
            let to = DataType::FixedSizeList(Arc::clone(item), size);
            return Err(unreadable(place.name, array.data_type(), &to));
        }
        let lengths = std::iter::repeat_n(size.max(0) as usize, array.len());
        let values = self.items(array.values(), lengths, item.data_type(), place)?;
        let made = FixedSizeListArray::try_new(Arc::clone(item), size, values, array.nulls().cloned());
        Ok(Arc::new(made.map_err(|e| required(place.name, e))?))
    }

    fn maps(&mut self, array: &MapArray, entries: &FieldRef, ordered: bool, place: Place<'_>) -> Result<ArrayRef> {
        let (DataType::Struct(fields), all) = (entries.data_type(), array.entries().clone()) else {
            return Err(unreadable(place.name, array.data_type(), entries.data_type()));
        };
        let (pairs, lengths) = window(array.offsets(), &(Arc::new(all) as ArrayRef));
        // Keys and values by place: writers name them as they like.
        let pairs = pairs.as_struct();
        let mut columns = Vec::with_capacity(2);
        for (column, field) in pairs.columns().iter().zip(fields) {
            columns.push(self.items(column, lengths.iter().copied(), field.data_type(), place)?);
        }
        let made = StructArray::try_new(fields.clone(), columns, None).and_then(|pairs| {
            let offsets = OffsetBuffer::from_lengths(lengths);
            MapArray::try_new(Arc::clone(entries), offsets, pairs, array.nulls().cloned(), ordered)
        });
        Ok(Arc::new(made.map_err(|e| required(place.name, e))?))
    }

    /// Values that are not nested.
    fn scalars(&mut self, array: &ArrayRef, to: &DataType, place: Place<'_>) -> Result<ArrayRef> {
        let from = array.data_type();
        let fitted = match number::convert(array, to)? {
            Some(fitted) => fitted,
            None if can_cast_types(from, to) => by_cast(array, to)?,
            None => return Err(unreadable(place.name, from, to)),
        };
        if fitted.null_count() > array.null_count() {
            let show = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            for i in (0..array.len()).filter(|i| fitted.is_null(*i) && array.is_valid(*i)) {
                let value = show.value(i).to_string();
                let reason = format!("column \"{}\": {value} is not {}", place.name, a_sql_name(to));
                self.misfits.push(Misfit { row: place.row(i), reason, raw: value.into_bytes() });
            }
        }
        Ok(fitted)
    }
}

/// The values between the first and the last of `offsets`, and how many each row has.
fn window<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &ArrayRef) -> (ArrayRef, Vec<usize>) {
    let first = offsets.first().map_or(0, |o| o.as_usize());
    let last = offsets.last().map_or(0, |o| o.as_usize());
    (values.slice(first, last - first), offsets.lengths().collect())
}

/// Casts, and takes out what the cast back does not give again.
fn by_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let from = array.data_type();
    let there = cast_with_options(array, to, &SAFE)?;
    let cut = matches!((from, to), (DataType::Timestamp(_, _), DataType::Timestamp(_, _)));
    let text = |t: &DataType| t.is_string() || t.is_binary();
    if cut || text(from) || text(to) || !can_cast_types(to, from) {
        return Ok(there);
    }
    let back = cast_with_options(&there, from, &SAFE)?;
    let same = arrow::compute::kernels::cmp::not_distinct(&back, array)?;
    if !same.values().has_false() {
        return Ok(there);
    }
    let lost = BooleanArray::new(!same.values(), None);
    arrow::compute::nullif(&there, &lost)
}

/// Nested values as JSON text.
pub(super) fn as_json(array: &ArrayRef) -> Result<ArrayRef> {
    let mut texts = StringViewBuilder::with_capacity(array.len());
    let field = Arc::new(Field::new("v", array.data_type().clone(), true));
    let options = arrow::json::writer::EncoderOptions::default();
    let mut encoder = arrow::json::writer::make_encoder(&field, array.as_ref(), &options)?;
    let mut text = vec![];
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}

fn unreadable(name: &str, from: &DataType, to: &DataType) -> Error {
    let (from, to) = (sql_name(from), sql_name(to));
    Error::invalid(format!("column \"{name}\" is {from}, which cannot be read as {to}"))
        .with_hint(format!("Declare the column as {from}."))
}

/// A field that must not be null is.
fn required(name: &str, e: ArrowError) -> Error {
    Error::data(format!("column \"{name}\": a field that must not be null is")).with_source(e)
}

#[cfg(test)]
mod tests;
