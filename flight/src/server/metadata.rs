//! The catalog as Flight SQL shows it: one catalog, its schemas, the streams as tables, their keys.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables,
};
use millstream_sql::session::{ObjectInfo, ObjectKind};

use super::info::type_name;
use crate::wire::wire_schema;

/// The only catalog.
pub(crate) const CATALOG: &str = "millstream";
/// The schema of streams and views.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// The schema of what Millstream keeps about itself.
pub(crate) const SYSTEM_SCHEMA: &str = "millstream";

/// Keys of a table schema's metadata, for what Flight SQL has no place for.
pub(crate) const KIND_KEY: &str = "millstream.kind";
pub(crate) const SQL_KEY: &str = "millstream.sql";
pub(crate) const PRIMARY_KEY_KEY: &str = "millstream.primary_key";

/// The key of a column's metadata that holds its SQL type, from the Flight SQL specification.
const TYPE_NAME_KEY: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";
const EXTERNAL: &str = "EXTERNAL STREAM";

pub(crate) fn catalogs(command: CommandGetCatalogs) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    builder.append(CATALOG);
    builder.build()
}

pub(crate) fn schemas(command: CommandGetDbSchemas) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    builder.append(CATALOG, DEFAULT_SCHEMA);
    builder.append(CATALOG, SYSTEM_SCHEMA);
    builder.build()
}

pub(crate) fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    for table_type in [TABLE, VIEW, EXTERNAL] {
        builder.append(table_type);
    }
    builder.build()
}

pub(crate) fn tables(command: CommandGetTables, objects: &[ObjectInfo]) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    for object in objects {
        let schema = table_schema(object);
        builder.append(CATALOG, &object.namespace, &object.name, table_type(object.kind), &schema)?;
    }
    builder.build()
}

/// What many clients look for is a `TABLE`: whatever is stored is one.
fn table_type(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Stored | ObjectKind::Derived => TABLE,
        ObjectKind::View => VIEW,
        ObjectKind::External | ObjectKind::Written => EXTERNAL,
    }
}

/// The schema as rows are sent, with SQL types and with what Flight SQL has no place for.
fn table_schema(object: &ObjectInfo) -> Schema {
    let wire = wire_schema(&object.schema);
    let fields = wire.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        metadata.insert(TYPE_NAME_KEY.to_owned(), type_name(field.data_type()));
        field.as_ref().clone().with_metadata(metadata)
    });
    let fields: Vec<Field> = fields.collect();
    let mut metadata = HashMap::from([
        (KIND_KEY.to_owned(), kind_word(object.kind).to_owned()),
        (SQL_KEY.to_owned(), object.sql.clone()),
    ]);
    if !object.primary_key.is_empty() {
        // Column names may hold any character, so they travel as JSON.
        let key = serde_json::to_string(&object.primary_key).unwrap_or_default();
        metadata.insert(PRIMARY_KEY_KEY.to_owned(), key);
    }
    Schema::new(fields).with_metadata(metadata)
}

const KIND_WORDS: [(ObjectKind, &str); 5] = [
    (ObjectKind::External, "external"),
    (ObjectKind::Stored, "stored"),
    (ObjectKind::Derived, "derived"),
    (ObjectKind::Written, "written"),
    (ObjectKind::View, "view"),
];

fn kind_word(kind: ObjectKind) -> &'static str {
    KIND_WORDS.iter().find(|(k, _)| *k == kind).map_or("", |(_, word)| word)
}

/// An object as it was before [`tables`] made a row of it; types are those of the wire.
pub(crate) fn object_of_table(namespace: &str, name: &str, table_type: &str, schema: &Schema) -> ObjectInfo {
    let metadata = schema.metadata();
    let word = metadata.get(KIND_KEY).map(String::as_str);
    let kind = KIND_WORDS.iter().find(|(_, w)| Some(*w) == word).map(|(kind, _)| *kind);
    // Another server's tables say no more than their type.
    let kind = kind.unwrap_or(match table_type {
        VIEW => ObjectKind::View,
        EXTERNAL => ObjectKind::External,
        _ => ObjectKind::Stored,
    });
    let primary_key = metadata.get(PRIMARY_KEY_KEY).and_then(|key| serde_json::from_str(key).ok());
    ObjectInfo {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        kind,
        schema: Arc::new(Schema::new(schema.fields().clone())),
        primary_key: primary_key.unwrap_or_default(),
        sql: metadata.get(SQL_KEY).cloned().unwrap_or_default(),
    }
}

/// The schema of primary keys.
pub(crate) fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

pub(crate) fn primary_keys(command: &CommandGetPrimaryKeys, objects: &[ObjectInfo]) -> Result<RecordBatch, ArrowError> {
    let in_catalog = command.catalog.as_deref().is_none_or(|catalog| catalog == CATALOG);
    let found = objects.iter().filter(|object| {
        let in_schema = command.db_schema.as_deref().is_none_or(|schema| schema == object.namespace);
        in_catalog && in_schema && object.name == command.table
    });
    let rows: Vec<(&ObjectInfo, &String, i32)> =
        found.flat_map(|object| (1..).zip(&object.primary_key).map(move |(n, column)| (object, column, n))).collect();
    let text = |f: &dyn Fn(&ObjectInfo, &String) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(object, column, _)| f(object, column))))
    };
    let columns = vec![
        text(&|_, _| CATALOG.to_owned()),
        text(&|object, _| object.namespace.clone()),
        text(&|object, _| object.name.clone()),
        text(&|_, column| column.clone()),
        text(&|object, _| format!("{}_pkey", object.name)),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, n)| *n))),
    ];
    RecordBatch::try_new(primary_keys_schema(), columns)
}

/// The schema of exported, imported and cross-referenced keys. There are never any rows: streams have no foreign
/// keys.
pub(crate) fn foreign_keys_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;

    use crate::wire::schema_of_bytes;

    fn object(namespace: &str, name: &str, kind: ObjectKind) -> ObjectInfo {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("note", DataType::Utf8View, true)];
        ObjectInfo {
            namespace: namespace.into(),
            name: name.into(),
            kind,
            schema: Arc::new(Schema::new(fields)),
            primary_key: if kind == ObjectKind::Stored { vec!["id".into(), "note".into()] } else { vec![] },
            sql: format!("CREATE STREAM {name} …"),
        }
    }

    fn objects() -> Vec<ObjectInfo> {
        vec![
            object("public", "readings", ObjectKind::Stored),
            object("public", "hot", ObjectKind::Derived),
            object("public", "v", ObjectKind::View),
            object("public", "bids", ObjectKind::External),
            object("millstream", "dead_letters", ObjectKind::Stored),
        ]
    }

    fn get_tables(command: CommandGetTables) -> Vec<(String, String)> {
        let batch = tables(command, &objects()).unwrap();
        let text = |i: usize, row| batch.column(i).as_string::<i32>().value(row).to_owned();
        (0..batch.num_rows()).map(|row| (text(2, row), text(3, row))).collect()
    }

    #[test]
    fn tables_are_found_by_pattern_and_type() {
        let all = get_tables(CommandGetTables::default());
        assert_eq!(all.len(), 5);
        assert!(all.contains(&("hot".into(), "TABLE".into())));
        assert!(all.contains(&("bids".into(), "EXTERNAL STREAM".into())));
        let like = CommandGetTables { table_name_filter_pattern: Some("%o%".into()), ..Default::default() };
        assert_eq!(get_tables(like), vec![("hot".into(), "TABLE".into())]);
        let views = CommandGetTables { table_types: vec!["VIEW".into()], ..Default::default() };
        assert_eq!(get_tables(views), vec![("v".into(), "VIEW".into())]);
        let system = CommandGetTables { db_schema_filter_pattern: Some("mill%".into()), ..Default::default() };
        assert_eq!(get_tables(system), vec![("dead_letters".into(), "TABLE".into())]);
        let elsewhere = CommandGetTables { catalog: Some("other".into()), ..Default::default() };
        assert!(get_tables(elsewhere).is_empty());
    }

    #[test]
    fn objects_come_back_from_tables() {
        let command = CommandGetTables { include_schema: true, ..Default::default() };
        let batch = tables(command, &objects()).unwrap();
        let text = |i: usize, row| batch.column(i).as_string::<i32>().value(row);
        for row in 0..batch.num_rows() {
            let bytes = batch.column(4).as_binary::<i32>().value(row).to_vec();
            let schema = schema_of_bytes(bytes.into()).unwrap();
            assert_eq!(schema.field(0).metadata()[TYPE_NAME_KEY], "BIGINT");
            assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
            let back = object_of_table(text(1, row), text(2, row), text(3, row), &schema);
            let was = objects().into_iter().find(|o| o.name == back.name).unwrap();
            assert_eq!((back.kind, back.primary_key, back.sql), (was.kind, was.primary_key, was.sql));
            assert_eq!(back.namespace, was.namespace);
        }
    }

    #[test]
    fn primary_keys_in_order() {
        let command = |db_schema: Option<&str>| CommandGetPrimaryKeys {
            catalog: None,
            db_schema: db_schema.map(str::to_owned),
            table: "readings".into(),
        };
        let batch = primary_keys(&command(None), &objects()).unwrap();
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.column(3).as_string::<i32>().value(1), "note");
        let sequence: Vec<i32> = batch.column(5).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec();
        assert_eq!(sequence, vec![1, 2]);
        assert_eq!(primary_keys(&command(Some("millstream")), &objects()).unwrap().num_rows(), 0);
    }

    #[test]
    fn catalogs_schemas_and_types() {
        assert_eq!(catalogs(CommandGetCatalogs {}).unwrap().num_rows(), 1);
        assert_eq!(schemas(CommandGetDbSchemas::default()).unwrap().num_rows(), 2);
        assert_eq!(table_types(CommandGetTableTypes {}).unwrap().num_rows(), 3);
    }
}
