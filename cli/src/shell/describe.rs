//! Listings of the catalog: `\d`, `\dt`, `\dv`, `\dj`, `\ds`.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use millstream_engine::time::EventTime;
use millstream_sql::session::{JobInfo, JobLag, ObjectInfo, ObjectKind};

use crate::backend::Settings;
use crate::output::Table;
use crate::report::{self, grouped};

/// Millstream's own objects are not listed among a user's.
const OWN: &str = "millstream";

/// What an object is, in a word.
pub(crate) fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::External => "external stream",
        ObjectKind::Stored => "stored stream",
        ObjectKind::Derived => "derived stream",
        ObjectKind::Written => "written stream",
        ObjectKind::View => "view",
    }
}

/// The name by which statements find it.
pub(crate) fn full_name(object: &ObjectInfo) -> String {
    if object.namespace == "public" { object.name.clone() } else { format!("{}.{}", object.namespace, object.name) }
}

/// A type as SQL writes it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => format!("{data_type}").to_uppercase(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("DECIMAL({precision}, {scale})")
        }
        DataType::Timestamp(unit, zone) => {
            let name = if zone.is_some() { "TIMESTAMPTZ" } else { "TIMESTAMP" };
            match unit {
                TimeUnit::Microsecond => name.into(),
                TimeUnit::Second => format!("{name}(0)"),
                TimeUnit::Millisecond => format!("{name}(3)"),
                TimeUnit::Nanosecond => format!("{name}(9)"),
            }
        }
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", type_name(item.data_type())),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type())));
            format!("STRUCT({})", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// `\d`, `\dt`, `\dv`: the objects that `wanted` takes.
pub(crate) fn objects(objects: &[ObjectInfo], jobs: &[JobInfo], wanted: impl Fn(ObjectKind) -> bool) -> Table {
    let mine = objects.iter().filter(|o| o.namespace != OWN && wanted(o.kind));
    let rows = mine.map(|object| {
        let columns: Vec<&str> = object.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let job = jobs.iter().find(|job| job.stream == object.name).map(|job| job.state.name().to_owned());
        vec![
            Some(full_name(object)),
            Some(kind_name(object.kind).to_owned()),
            Some(job.unwrap_or_default()),
            Some(columns.join(", ")),
        ]
    });
    Table::texts(&["name", "kind", "job", "columns"], rows.collect())
}

/// The columns of one object.
pub(crate) fn columns(object: &ObjectInfo) -> Table {
    let rows = object.schema.fields().iter().map(|field| {
        let key = object.primary_key.contains(field.name());
        let note = match (key, field.is_nullable()) {
            (true, _) => "primary key",
            (false, false) => "not null",
            (false, true) => "",
        };
        vec![Some(field.name().clone()), Some(type_name(field.data_type())), Some(note.to_owned())]
    });
    Table::texts(&["column", "type", "constraint"], rows.collect())
}

/// `\dj`
pub(crate) fn jobs(jobs: &[JobInfo]) -> Table {
    let rows = jobs.iter().map(|job| {
        vec![
            Some(job.stream.clone()),
            Some(job.state.name().to_owned()),
            Some(job.rows_in.map(grouped).unwrap_or_default()),
            Some(job.rows_out.map(grouped).unwrap_or_default()),
            Some(job.progress.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0))),
            Some(job.lag.as_ref().map_or_else(String::new, shortly)),
            Some(if job.watermark == EventTime::MIN { String::new() } else { job.watermark.to_string() }),
            Some(job.error.clone().unwrap_or_default()),
        ]
    });
    Table::texts(&["stream", "state", "rows in", "rows out", "done", "lag", "watermark", "error"], rows.collect())
        .with_number(2)
        .with_number(3)
        .with_number(4)
}

/// What there is of a lag: `1 200 rows, 3 s, cut`.
fn shortly(lag: &JobLag) -> String {
    let rows = lag.rows.filter(|rows| *rows > 0).map(report::rows);
    let time = (lag.seconds >= 1.0).then(|| format!("{:.0} s", lag.seconds));
    let cut = lag.is_cut().filter(|cut| *cut).map(|_| "cut".to_owned());
    [rows, time, cut].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `\ds`
pub(crate) fn settings(settings: &Settings) -> Table {
    let rows = settings
        .iter()
        .map(|(name, (value, about))| vec![Some(name.clone()), Some(value.clone()), Some(about.clone())]);
    Table::texts(&["setting", "value", "meaning"], rows.collect())
}

/// A line for each way to use each connector, of the rows of SHOW CONNECTORS.
pub(crate) fn connectors(rows: &[RecordBatch]) -> String {
    let mut text = String::new();
    for batch in rows {
        let column = |name: &str| {
            let texts = cast(batch.column_by_name(name)?, &DataType::Utf8).ok()?;
            Some(texts.as_string::<i32>().clone())
        };
        let columns = (column("connector"), column("use"), column("option"), column("meaning"));
        let (Some(names), Some(ways), Some(options), Some(meanings)) = columns else { continue };
        for row in (0..batch.num_rows()).filter(|row| options.is_null(*row)) {
            let how = format!("connector = '{}', {}", names.value(row), ways.value(row));
            text += &format!("  {how:<45} {}\n", meanings.value(row));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}  {:<45} their options\n", "SHOW CONNECTORS; \\dc [PATTERN]") }
}

/// A line on the job of an object.
pub(crate) fn job_line(job: &JobInfo) -> String {
    let rows = match (job.rows_in, job.rows_out) {
        (Some(read), Some(written)) => format!("{} in, {} out, ", report::rows(read), report::rows(written)),
        _ => String::new(),
    };
    let mut line = format!("job {}: {rows}epoch {}, watermark {}", job.state.name(), job.epoch, job.watermark);
    if let Some(lag) = &job.lag {
        line += &format!("\nlag: {lag}");
    }
    if let Some(error) = &job.error {
        line += &format!("\nfailed: {error}");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::output::{Expanded, render};
    use crate::terminal::Screen;

    fn object(namespace: &str, name: &str, kind: ObjectKind) -> ObjectInfo {
        ObjectInfo {
            namespace: namespace.into(),
            name: name.into(),
            kind,
            schema: Arc::new(Schema::new(vec![
                Field::new("id", DataType::Int64, false),
                Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            ])),
            primary_key: vec!["id".into()],
            sql: String::new(),
        }
    }

    #[test]
    fn own_objects_are_not_listed() {
        let all =
            [object("public", "hot", ObjectKind::Derived), object("millstream", "dead_letters", ObjectKind::Stored)];
        let text = render(&objects(&all, &[], |_| true), Screen::PLAIN, Expanded::Off);
        assert!(text.contains("hot") && text.contains("id, at") && !text.contains("dead_letters"), "{text}");
        assert_eq!(full_name(&all[1]), "millstream.dead_letters");
    }

    #[test]
    fn a_lag_is_told_where_there_is_one() {
        let link = |link: &str| Some(link.to_owned());
        let none = JobLag { rows: Some(0), bytes: Some(0), seconds: 0.2, link: link("connected") };
        assert_eq!(shortly(&none), "");
        let much = JobLag { rows: Some(1_200), seconds: 3.4, link: link("cut for 3 s: no answer"), ..none };
        assert_eq!(shortly(&much), "1 200 rows, 3 s, cut");
    }

    #[test]
    fn columns_have_sql_types() {
        let text = render(&columns(&object("public", "hot", ObjectKind::Stored)), Screen::PLAIN, Expanded::Off);
        assert!(text.contains("BIGINT    │ primary key") && text.contains("TIMESTAMP"), "{text}");
        let list = DataType::new_list(DataType::Utf8View, true);
        assert_eq!(type_name(&list), "TEXT[]");
    }
}
