//! One value as text.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use millstream_sql::{ErrorKind, Result};

use crate::report;

/// ISO 8601 with a blank, as PostgreSQL and DuckDB print it; `%.f` is nothing when the fraction is zero.
const OPTIONS: FormatOptions<'static> = FormatOptions::new()
    .with_date_format(Some("%Y-%m-%d"))
    .with_datetime_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
    .with_time_format(Some("%H:%M:%S%.f"))
    .with_duration_format(DurationFormat::Pretty);

/// What prints the values of each column.
pub(crate) fn formatters(batch: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>> {
    batch
        .columns()
        .iter()
        .map(|column| {
            ArrayFormatter::try_new(column.as_ref(), &OPTIONS)
                .map_err(|e| report::fail(ErrorKind::Unsupported, format!("cannot print the rows: {e}")))
        })
        .collect()
}

/// Whether values are aligned to the right.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        _ => data_type.is_numeric(),
    }
}

/// Whether a value that is cut would mislead: a number, a time, a flag.
pub(crate) fn is_whole(data_type: &DataType) -> bool {
    is_number(data_type) || data_type.is_temporal() || *data_type == DataType::Boolean
}
