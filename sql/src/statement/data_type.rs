//! SQL types to Arrow types: PostgreSQL's names, microsecond timestamps, views for text and bytes.
//!
//! | SQL | Arrow |
//! |---|---|
//! | `TIMESTAMP`, `TIMESTAMP(0\|3\|6\|9)` | `Timestamp(µs)`, or that unit |
//! | `TIMESTAMPTZ`, `TIMESTAMP_LTZ`, `TIMESTAMP WITH TIME ZONE` | the same with `"UTC"` |
//! | `TEXT`, `VARCHAR`, `STRING`, `CHAR` | `Utf8View` |
//! | `BYTEA`, `BYTES`, `VARBINARY` | `BinaryView` |
//! | `T[]`, `ARRAY<T>`, `STRUCT<…>`, `ROW<…>`, `MAP(K, V)` | `List`, `Struct`, `Map` |

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, IntervalUnit, TimeUnit,
};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as Sql, ExactNumberInfo, StructField, TimezoneInfo};

use super::display::fold;
use crate::error::{Error, Result};

/// The Arrow type of an SQL type.
pub fn arrow_type(sql: &Sql) -> Result<DataType> {
    if let Some(plain) = integer_type(sql).or_else(|| plain_type(sql)) {
        return Ok(plain);
    }
    match sql {
        Sql::Timestamp(precision, zone) => timestamp(sql, *precision, *zone),
        Sql::Datetime(precision) | Sql::TimestampNtz(precision) => timestamp(sql, *precision, TimezoneInfo::None),
        Sql::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => time(sql, *precision),
        Sql::Float(info) => float(sql, info),
        Sql::Double(ExactNumberInfo::None) => Ok(DataType::Float64),
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(sql, info),
        Sql::Interval { fields: None, precision: None } => Ok(DataType::Interval(IntervalUnit::MonthDayNano)),
        Sql::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, None)) => {
            Ok(DataType::List(Arc::new(Field::new_list_field(arrow_type(item)?, true))))
        }
        Sql::Struct(fields, _) => struct_type(sql, fields),
        Sql::Map(key, value) => {
            let key = Field::new("key", arrow_type(key)?, false);
            let pair = DataType::Struct(vec![key, Field::new("value", arrow_type(value)?, true)].into());
            Ok(DataType::Map(Arc::new(Field::new("entries", pair, false)), false))
        }
        Sql::Custom(name, modifiers) => custom(sql, &name.to_string().to_ascii_lowercase(), modifiers),
        _ => Err(unknown(sql)),
    }
}

fn integer_type(sql: &Sql) -> Option<DataType> {
    let data_type = match sql {
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::Int16 => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) | Sql::Int32 => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) | Sql::Int64 => DataType::Int64,
        Sql::TinyIntUnsigned(_) | Sql::UTinyInt | Sql::UInt8 => DataType::UInt8,
        Sql::SmallIntUnsigned(_) | Sql::Int2Unsigned(_) | Sql::USmallInt | Sql::UInt16 => DataType::UInt16,
        Sql::IntUnsigned(_) | Sql::IntegerUnsigned(_) | Sql::Int4Unsigned(_) | Sql::UInt32 => DataType::UInt32,
        Sql::BigIntUnsigned(_) | Sql::Int8Unsigned(_) | Sql::UBigInt | Sql::UInt64 => DataType::UInt64,
        _ => return None,
    };
    Some(data_type)
}

fn plain_type(sql: &Sql) -> Option<DataType> {
    let data_type = match sql {
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::Real | Sql::Float4 | Sql::Float32 => DataType::Float32,
        Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => DataType::Float64,
        Sql::Date => DataType::Date32,
        // A length is a check in PostgreSQL and a hint elsewhere: none is made, so none is read.
        Sql::Text
        | Sql::String(None)
        | Sql::Varchar(None)
        | Sql::CharacterVarying(None)
        | Sql::CharVarying(None)
        | Sql::Char(None)
        | Sql::Character(None) => DataType::Utf8View,
        Sql::Bytea | Sql::Bytes(None) | Sql::Varbinary(None) | Sql::Binary(None) | Sql::Blob(None) => {
            DataType::BinaryView
        }
        _ => return None,
    };
    Some(data_type)
}

fn timestamp(sql: &Sql, precision: Option<u64>, zone: TimezoneInfo) -> Result<DataType> {
    let zone = match zone {
        TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => None,
        TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => Some("UTC".into()),
    };
    Ok(DataType::Timestamp(unit(sql, precision)?, zone))
}

fn unit(sql: &Sql, precision: Option<u64>) -> Result<TimeUnit> {
    match precision {
        Some(0) => Ok(TimeUnit::Second),
        Some(3) => Ok(TimeUnit::Millisecond),
        None | Some(6) => Ok(TimeUnit::Microsecond),
        Some(9) => Ok(TimeUnit::Nanosecond),
        Some(_) => Err(Error::unsupported(format!("type {sql} is not supported"))
            .with_hint("The precision is 0, 3, 6 or 9 digits after the second.")),
    }
}

fn time(sql: &Sql, precision: Option<u64>) -> Result<DataType> {
    Ok(match unit(sql, precision)? {
        unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
        unit => DataType::Time64(unit),
    })
}

/// PostgreSQL: `FLOAT` is double, `FLOAT(p)` counts bits.
fn float(sql: &Sql, info: &ExactNumberInfo) -> Result<DataType> {
    match info {
        ExactNumberInfo::None => Ok(DataType::Float64),
        ExactNumberInfo::Precision(1..=24) => Ok(DataType::Float32),
        ExactNumberInfo::Precision(25..=53) => Ok(DataType::Float64),
        _ => Err(unknown(sql)),
    }
}

fn decimal(sql: &Sql, info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        // What DataFusion takes for a bare DECIMAL.
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let wrong = || {
        Error::invalid(format!("type {sql} is not possible"))
            .with_hint("Write DECIMAL(p, s) with p from 1 to 76 and s from 0 to p.")
    };
    let precision = u8::try_from(precision).map_err(|_| wrong())?;
    let scale = i8::try_from(scale).map_err(|_| wrong())?;
    if precision == 0 || precision > DECIMAL256_MAX_PRECISION || scale < 0 || scale.unsigned_abs() > precision {
        return Err(wrong());
    }
    Ok(match precision {
        ..=DECIMAL128_MAX_PRECISION => DataType::Decimal128(precision, scale),
        _ => DataType::Decimal256(precision, scale),
    })
}

fn struct_type(sql: &Sql, fields: &[StructField]) -> Result<DataType> {
    let field = |f: &StructField| {
        let name = f.field_name.as_ref().ok_or_else(|| {
            Error::invalid(format!("a field of {sql} has no name")).with_hint("Write it like STRUCT<a INT, b TEXT>.")
        })?;
        if f.options.is_some() {
            return Err(unknown(sql));
        }
        Ok(Field::new(fold(name), arrow_type(&f.field_type)?, true))
    };
    Ok(DataType::Struct(fields.iter().map(field).collect::<Result<Fields>>()?))
}

/// Names that the parser does not know.
fn custom(sql: &Sql, name: &str, modifiers: &[String]) -> Result<DataType> {
    match (name, modifiers) {
        ("timestamp_ltz", []) => Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("timestamp_ltz", [precision]) => {
            let precision = precision.parse().map_err(|_| unknown(sql))?;
            timestamp(sql, Some(precision), TimezoneInfo::Tz)
        }
        _ => Err(unknown(sql)),
    }
}

fn unknown(sql: &Sql) -> Error {
    let error = Error::unsupported(format!("type {sql} is not supported"));
    match sql {
        Sql::Varchar(_) | Sql::Char(_) | Sql::Character(_) | Sql::CharacterVarying(_) | Sql::String(_) => {
            error.with_hint("Write TEXT: lengths of text are not checked.")
        }
        Sql::JSON | Sql::JSONB | Sql::Uuid => error.with_hint("Write TEXT."),
        Sql::Time(..) => error.with_hint("Write TIME, or TIMESTAMPTZ for a point in time."),
        Sql::Array(_) => error.with_hint("Write T[] or ARRAY<T>."),
        _ => error.with_hint(
            "The types are BOOLEAN, TINYINT, SMALLINT, INT, BIGINT (each also UNSIGNED), REAL, DOUBLE, DECIMAL(p, s), \
             TEXT, BYTEA, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, T[], STRUCT<…> and MAP(K, V); INTERVAL in queries, but not \
             in columns that are stored.",
        ),
    }
}
