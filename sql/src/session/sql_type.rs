//! The names that types have in statements.

use arrow::datatypes::{DataType, TimeUnit};

use crate::error::{Error, Result};
use crate::statement::quote_name;

/// A type as CREATE STREAM takes it.
pub(super) fn sql_type(t: &DataType) -> Result<String> {
    let precision = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "(0)",
        TimeUnit::Millisecond => "(3)",
        TimeUnit::Microsecond => "",
        TimeUnit::Nanosecond => "(9)",
    };
    Ok(match t {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "TINYINT UNSIGNED".to_owned(),
        DataType::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        DataType::UInt32 => "INT UNSIGNED".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Float16 | DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "BYTEA".to_owned()
        }
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP{}", precision(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP{} WITH TIME ZONE", precision(unit)),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            format!("DECIMAL({p}, {s})")
        }
        DataType::Interval(_) => "INTERVAL".to_owned(),
        DataType::Dictionary(_, value) => sql_type(value)?,
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            format!("{}[]", sql_type(f.data_type())?)
        }
        DataType::Struct(fields) => {
            let inner = fields.iter().map(|f| Ok(format!("{} {}", quote_name(f.name()), sql_type(f.data_type())?)));
            format!("STRUCT<{}>", inner.collect::<Result<Vec<_>>>()?.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP({}, {})", sql_type(pair[0].data_type())?, sql_type(pair[1].data_type())?)
            }
            other => return Err(Error::internal(format!("a map of {other}"))),
        },
        other => return Err(Error::unsupported(format!("type {other} has no SQL name here"))),
    })
}
