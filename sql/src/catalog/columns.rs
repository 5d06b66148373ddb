//! Columns in the catalog: their types to the letter, in a form that people and later builds can read.
//!
//! ```text
//! {"name": "at", "type": "Timestamp(µs)"}
//! {"name": "s", "type": {"struct": [{"name": "a", "type": "Int64", "nullable": false}]}}
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A column of a stream or a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    name: String,
    #[serde(rename = "type")]
    data_type: Type,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    nullable: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_yes(nullable: &bool) -> bool {
    *nullable
}

/// A type: by Arrow's name where it has no fields of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Type {
    Plain(String),
    Nested(Nested),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Nested {
    List(Box<Column>),
    LargeList(Box<Column>),
    FixedSizeList(Box<Column>, i32),
    Struct(Vec<Column>),
    /// Its entries, and whether the keys are sorted.
    Map(Box<Column>, bool),
    /// The types of keys and values.
    Dictionary(Box<Type>, Box<Type>),
}

/// The columns of `schema`.
///
/// Errors with `Unsupported` for a type that cannot be written down.
pub fn columns_of(schema: &Schema) -> Result<Vec<Column>> {
    schema.fields().iter().map(|f| Column::of(f)).collect()
}

/// The schema of `columns`.
pub fn schema_of(columns: &[Column]) -> Result<SchemaRef> {
    Ok(Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Result<Vec<_>>>()?)))
}

impl Column {
    fn of(field: &Field) -> Result<Self> {
        let data_type = Type::of(field.data_type()).map_err(|e| e.context(format!("column \"{}\"", field.name())))?;
        Ok(Column { name: field.name().clone(), data_type, nullable: field.is_nullable() })
    }

    fn field(&self) -> Result<Field> {
        Ok(Field::new(&self.name, self.data_type.arrow()?, self.nullable))
    }
}

impl Type {
    fn of(data_type: &DataType) -> Result<Self> {
        let column = |f: &Arc<Field>| Column::of(f).map(Box::new);
        Ok(Type::Nested(match data_type {
            DataType::List(f) => Nested::List(column(f)?),
            DataType::LargeList(f) => Nested::LargeList(column(f)?),
            DataType::FixedSizeList(f, n) => Nested::FixedSizeList(column(f)?, *n),
            DataType::Struct(fields) => {
                Nested::Struct(fields.iter().map(|f| Column::of(f)).collect::<Result<Vec<_>>>()?)
            }
            DataType::Map(f, sorted) => Nested::Map(column(f)?, *sorted),
            DataType::Dictionary(key, value) => {
                Nested::Dictionary(Box::new(Type::of(key)?), Box::new(Type::of(value)?))
            }
            plain => {
                let text = plain.to_string();
                if text.parse::<DataType>().ok().as_ref() != Some(plain) {
                    return Err(Error::unsupported(format!("type {plain} cannot be kept in the catalog"))
                        .with_hint("Cast it to another type."));
                }
                return Ok(Type::Plain(text));
            }
        }))
    }

    fn arrow(&self) -> Result<DataType> {
        let field = |c: &Column| c.field().map(Arc::new);
        Ok(match self {
            Type::Plain(text) => text
                .parse()
                .map_err(|e| Error::internal(format!("the catalog has a column of the unknown type {text}: {e}")))?,
            Type::Nested(Nested::List(c)) => DataType::List(field(c)?),
            Type::Nested(Nested::LargeList(c)) => DataType::LargeList(field(c)?),
            Type::Nested(Nested::FixedSizeList(c, n)) => DataType::FixedSizeList(field(c)?, *n),
            Type::Nested(Nested::Struct(columns)) => {
                DataType::Struct(columns.iter().map(Column::field).collect::<Result<_>>()?)
            }
            Type::Nested(Nested::Map(c, sorted)) => DataType::Map(field(c)?, *sorted),
            Type::Nested(Nested::Dictionary(key, value)) => {
                DataType::Dictionary(Box::new(key.arrow()?), Box::new(value.arrow()?))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::datatypes::{Fields, IntervalUnit, TimeUnit};

    fn all_types() -> Vec<DataType> {
        use DataType::*;
        let inner = Fields::from(vec![Field::new("a \"b\"', c: Int64)", Int64, false), Field::new("", Utf8View, true)]);
        let entries = Struct(vec![Field::new("key", Utf8View, false), Field::new("value", Int32, true)].into());
        let mut types = vec![
            Boolean,
            UInt64,
            Float16,
            Float64,
            Utf8View,
            Binary,
            Date32,
            Date64,
            Time32(TimeUnit::Second),
            Time64(TimeUnit::Nanosecond),
            Timestamp(TimeUnit::Microsecond, None),
            Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Timestamp(TimeUnit::Second, Some("+05:30".into())),
            Timestamp(TimeUnit::Millisecond, Some("America/New_York".into())),
            Duration(TimeUnit::Microsecond),
            Interval(IntervalUnit::MonthDayNano),
            Decimal128(38, 10),
            Decimal256(76, 0),
            FixedSizeBinary(16),
            Map(Arc::new(Field::new("entries", entries, false)), false),
            Dictionary(Box::new(Int32), Box::new(Utf8)),
            Struct(inner.clone()),
            Struct(Fields::empty()),
            FixedSizeList(Arc::new(Field::new_list_field(Int8, true)), 3),
        ];
        types.push(List(Arc::new(Field::new("element", Struct(inner), false))));
        types.push(LargeList(Arc::new(Field::new_list_field(types[types.len() - 1].clone(), true))));
        types
    }

    #[test]
    fn columns_come_back_to_the_letter() {
        let fields: Vec<_> =
            all_types().into_iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t, i % 2 == 0)).collect();
        let schema = Schema::new(fields);
        let columns = columns_of(&schema).unwrap();
        let text = serde_json::to_string(&columns).unwrap();
        let again: Vec<Column> = serde_json::from_str(&text).unwrap();
        assert_eq!(*schema_of(&again).unwrap(), schema, "{text}");
    }

    #[test]
    fn columns_read_as_documented() {
        let inner = DataType::Struct(vec![Field::new("a", DataType::Int64, false)].into());
        let at = DataType::Timestamp(TimeUnit::Microsecond, None);
        let schema = Schema::new(vec![Field::new("at", at, true), Field::new("s", inner, true)]);
        let text: Vec<_> = columns_of(&schema).unwrap().iter().map(|c| serde_json::to_string(c).unwrap()).collect();
        assert_eq!(text[0], r#"{"name":"at","type":"Timestamp(µs)"}"#);
        assert_eq!(text[1], r#"{"name":"s","type":{"struct":[{"name":"a","type":"Int64","nullable":false}]}}"#);
    }
}
