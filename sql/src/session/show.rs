//! `SHOW` and `DESCRIBE`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::connector::registry::Connectors;

use super::audit_table;
use super::jobs::public;
use super::outcome::{JobInfo, ObjectInfo, ObjectKind, Outcome};
use super::sql_type::sql_type;
use super::tables::StreamDef;
use super::{Millstream, Session};
use crate::error::{Error, Result};
use crate::plan::session_state;
use crate::rights::{Need, Right};
use crate::statement::{Name, Statement, cut_secrets};

pub(super) fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

pub(super) fn strings(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

pub(super) fn table(fields: Vec<Field>, columns: Vec<ArrayRef>) -> Result<Outcome> {
    Ok(Outcome::table(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
}

fn kind_text(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::External => "external",
        ObjectKind::Stored => "stored",
        ObjectKind::Derived => "derived",
        ObjectKind::Written => "written out",
        ObjectKind::View => "view",
    }
}

impl Session {
    pub(super) fn show(&self, statement: &Statement) -> Result<Outcome> {
        match statement {
            Statement::ShowStreams => self.show_streams(),
            Statement::ShowViews => self.show_views(),
            Statement::ShowJobs => self.show_jobs(),
            Statement::ShowNodes => self.show_nodes(),
            Statement::ShowFunctions { like } => show_functions(like.as_deref()),
            Statement::ShowConnectors { like } => {
                show_connectors(&self.millstream.config().connectors, like.as_deref())
            }
            Statement::ShowCreate(name) => self.show_create(name),
            Statement::ShowSetting(name) => self.show_setting(name.as_deref()),
            Statement::Describe(name) => self.describe(name),
            _ => Err(Error::internal("no way to execute this statement")),
        }
    }

    /// The columns that a listing has, for clients that ask before they run it.
    pub(super) fn listing_schema(&self, statement: &Statement) -> Option<SchemaRef> {
        if let Statement::Explain(_) = statement {
            return Some(Arc::new(Schema::new(vec![text("plan")])));
        }
        let is_listing = matches!(
            statement,
            Statement::ShowStreams
                | Statement::ShowViews
                | Statement::ShowJobs
                | Statement::ShowNodes
                | Statement::ShowFunctions { .. }
                | Statement::ShowConnectors { .. }
                | Statement::ShowCreate(_)
                | Statement::ShowSetting(_)
                | Statement::Describe(_)
        );
        if let Statement::Access(access) = statement {
            return self.access_schema(access);
        }
        match self.show(statement) {
            Ok(Outcome::Rows(rows)) if is_listing => Some(rows.schema),
            _ => None,
        }
    }

    fn show_streams(&self) -> Result<Outcome> {
        let ms = &self.millstream;
        let jobs = self.jobs();
        let objects = ms.objects.read();
        // What could not even be defined is there, too.
        let broken =
            jobs.iter().filter(|j| !objects.streams.contains_key(&j.stream) && !objects.views.contains_key(&j.stream));
        let mut all: Vec<(&str, Option<&StreamDef>)> = broken.map(|j| (j.stream.as_str(), None)).collect();
        let readable = objects.streams.values().filter(|d| self.may_read(&d.name));
        all.extend(readable.map(|d| (d.name.as_str(), Some(&**d))));
        all.sort_by_key(|(name, _)| *name);
        let of_def = |text: &dyn Fn(&StreamDef) -> Option<String>| strings(all.iter().map(|(_, d)| d.and_then(text)));
        let state = |name: &str| jobs.iter().find(|j| j.stream == name).map(|j| j.state.name().to_owned());
        let kept = |changelog: bool| {
            let logs = all.iter().map(move |(_, d)| d.filter(|d| d.changelog == changelog)?.log.as_ref());
            Arc::new(UInt64Array::from_iter(logs.map(|log| log.map(|l| l.snapshot().rows))))
        };
        table(
            vec![
                text("name"),
                text("kind"),
                text("mode"),
                text("job"),
                Field::new("rows", DataType::UInt64, true),
                Field::new("changes", DataType::UInt64, true),
                text("location"),
            ],
            vec![
                strings(all.iter().map(|(name, _)| Some((*name).to_owned()))),
                of_def(&|d| Some(kind_text(d.kind).to_owned())),
                of_def(&|d| Some(if d.changelog { "updates" } else { "append-only" }.to_owned())),
                strings(all.iter().map(|(name, _)| state(name))),
                kept(false),
                kept(true),
                of_def(&|d| match (&d.log, &d.connector) {
                    (Some(log), _) => Some(log.store().locate(&log.folder())),
                    (None, Some((connector, _))) => Some(format!("connector {}", connector.name())),
                    _ => None,
                }),
            ],
        )
    }

    fn show_views(&self) -> Result<Outcome> {
        let views: Vec<_> = {
            let objects = self.millstream.objects.read();
            let readable = objects.views.iter().filter(|(name, _)| self.may_read(name));
            readable.map(|(name, view)| (name.clone(), view.create.query.text.clone())).collect()
        };
        let text_of = |(name, query): &(String, String)| self.may_read_through(name).then(|| query.clone());
        table(
            vec![text("name"), text("query")],
            vec![strings(views.iter().map(|(name, _)| Some(name.clone()))), strings(views.iter().map(text_of))],
        )
    }

    fn show_jobs(&self) -> Result<Outcome> {
        let jobs = self.jobs();
        let numbers =
            |f: fn(&JobInfo) -> Option<u64>| -> ArrayRef { Arc::new(UInt64Array::from_iter(jobs.iter().map(f))) };
        let percent = jobs.iter().map(|j| j.progress.map(|p| (p * 1000.0).round() / 10.0));
        table(
            vec![
                text("stream"),
                text("state"),
                Field::new("rows_in", DataType::UInt64, true),
                Field::new("rows_out", DataType::UInt64, true),
                Field::new("epoch", DataType::UInt64, false),
                text("watermark"),
                Field::new("percent", DataType::Float64, true),
                Field::new("lag_rows", DataType::UInt64, true),
                Field::new("lag_bytes", DataType::UInt64, true),
                Field::new("lag_seconds", DataType::Float64, true),
                text("link"),
                text("error"),
            ],
            vec![
                strings(jobs.iter().map(|j| Some(j.stream.clone()))),
                strings(jobs.iter().map(|j| Some(j.state.name().to_owned()))),
                numbers(|j| j.rows_in),
                numbers(|j| j.rows_out),
                numbers(|j| Some(j.epoch)),
                strings(jobs.iter().map(|j| Some(j.watermark.to_string()))),
                Arc::new(Float64Array::from_iter(percent)),
                numbers(|j| j.lag.as_ref()?.rows),
                numbers(|j| j.lag.as_ref()?.bytes),
                Arc::new(Float64Array::from_iter(jobs.iter().map(|j| Some(j.lag.as_ref()?.seconds)))),
                strings(jobs.iter().map(|j| j.lag.as_ref()?.link.clone())),
                strings(jobs.iter().map(|j| j.error.clone())),
            ],
        )
    }

    fn show_create(&self, name: &Name) -> Result<Outcome> {
        let name = public(name)?;
        let sql = {
            let objects = self.millstream.objects.read();
            let stream = objects.streams.get(name).map(|d| d.sql.clone());
            stream.or_else(|| objects.views.get(name).map(|v| v.sql.clone()))
        };
        let sql = sql.ok_or_else(|| self.millstream.missing("", name))?;
        table(
            vec![text("name"), text("statement")],
            vec![strings([Some(name.to_owned())]), strings([Some(cut_secrets(&sql).into_owned())])],
        )
    }

    fn show_setting(&self, name: Option<&str>) -> Result<Outcome> {
        let all = self.settings();
        if let Some(name) = name.filter(|n| !all.contains_key(*n)) {
            return Err(super::settings::unknown(name));
        }
        let chosen: Vec<_> = all.into_iter().filter(|(n, _)| name.is_none_or(|x| x == n)).collect();
        table(
            vec![text("name"), text("value"), text("description")],
            vec![
                strings(chosen.iter().map(|(n, _)| Some(n.clone()))),
                strings(chosen.iter().map(|(_, (v, _))| Some(v.clone()))),
                strings(chosen.iter().map(|(_, (_, d))| Some((*d).to_owned()))),
            ],
        )
    }

    /// The jobs of streams that may be read.
    pub fn jobs(&self) -> Vec<JobInfo> {
        let mut jobs = self.millstream.jobs();
        jobs.retain(|job| self.may_read(&job.stream));
        for job in &mut jobs {
            job.error = job.error.take().map(|reason| self.told_of(&job.stream, reason));
            if let Some(lag) =
                job.lag.as_mut().filter(|lag| lag.is_cut() == Some(true) && !self.may_read_through(&job.stream))
            {
                lag.link = Some("cut".to_owned());
            }
        }
        jobs
    }

    /// The objects of the catalog that may be read, by name; with the statements that make them where all that those
    /// read may be read.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        let mut objects = self.millstream.objects();
        let access = self.millstream.access();
        objects.retain(|object| match (object.namespace.as_str(), object.name.as_str()) {
            ("public", name) => self.may_read(name),
            (_, audit_table::NAME) => access.allows(&self.who, Need::OnAll(Right::Admin)),
            _ => true,
        });
        for object in objects.iter_mut().filter(|object| !object.sql.is_empty()) {
            object.sql = match self.may_read_through(&object.name) {
                true => cut_secrets(&object.sql).into_owned(),
                false => String::new(),
            };
        }
        objects
    }

    fn describe(&self, name: &Name) -> Result<Outcome> {
        let objects = self.millstream.objects();
        let namespace = name.schema.as_deref().unwrap_or("public");
        let found = objects.iter().find(|o| o.namespace == namespace && o.name == name.name);
        let object = found.ok_or_else(|| self.millstream.missing("", &name.name))?;
        let def = self.millstream.objects.read().streams.get(&object.name).cloned();
        let time = def.as_ref().and_then(|def| Some(def.schema.field(def.event_time.as_ref()?.0)));
        let metadata = |f: &Field| def.as_ref()?.metadata.get(&def.as_ref()?.schema.index_of(f.name()).ok()?);
        let note = |f: &Field| {
            let mut notes = vec![];
            if object.primary_key.contains(f.name()) {
                notes.push("primary key".to_owned());
            }
            if time.is_some_and(|time| time.name() == f.name()) {
                notes.push("event time".to_owned());
            }
            notes.extend(metadata(f).map(|key| format!("metadata '{key}'")));
            (!notes.is_empty()).then(|| notes.join(", "))
        };
        let fields = object.schema.fields();
        table(
            vec![text("column"), text("type"), Field::new("nullable", DataType::Boolean, false), text("note")],
            vec![
                strings(fields.iter().map(|f| Some(f.name().clone()))),
                strings(
                    fields.iter().map(|f| Some(sql_type(f.data_type()).unwrap_or_else(|_| f.data_type().to_string()))),
                ),
                Arc::new(BooleanArray::from_iter(fields.iter().map(|f| Some(f.is_nullable())))),
                strings(fields.iter().map(|f| note(f))),
            ],
        )
    }
}

/// Keeps those whose names are `like` the pattern, in any case.
fn retain_like<T>(all: &mut Vec<T>, name: impl Fn(&T) -> &str, like: Option<&str>) -> Result<()> {
    let Some(pattern) = like else { return Ok(()) };
    let names = StringArray::from_iter_values(all.iter().map(name));
    let found = arrow::compute::ilike(&names, &StringArray::new_scalar(pattern))?;
    let mut found = found.iter();
    all.retain(|_| found.next().flatten().unwrap_or(false));
    Ok(())
}

/// A row for each way to use each connector, one for each option that it has then, and one for each thing that it knows
/// of a record besides its content.
fn show_connectors(connectors: &Connectors, like: Option<&str>) -> Result<Outcome> {
    let mut all: Vec<_> = connectors.iter().collect();
    retain_like(&mut all, |c| c.name(), like)?;
    let mut rows: Vec<[Option<String>; 8]> = vec![];
    let some = |text: &dyn std::fmt::Display| Some(text.to_string());
    for connector in all {
        let read = connector.source().map(|s| ("read", s.promise(), s.options()));
        let written = connector.sink().map(|s| ("write", s.promise(), s.options()));
        for (way, promise, options) in read.into_iter().chain(written) {
            let (name, about) = (some(&connector.name()), some(&connector.about()));
            rows.push([name.clone(), some(&way), some(&promise), None, None, None, None, about]);
            rows.extend(options.iter().map(|o| {
                let example = Some(o.example.to_owned());
                [
                    name.clone(),
                    some(&way),
                    None,
                    some(&o.name),
                    some(&o.takes),
                    some(&o.fallback),
                    example,
                    some(&o.help),
                ]
            }));
        }
        for key in connector.source().map(|s| s.metadata()).unwrap_or_default() {
            let takes = sql_type(&key.data_type)?;
            let example = format!("c {takes} METADATA FROM '{}'", key.name);
            let default = if key.nullable { "may be null" } else { "never null" };
            rows.push([
                some(&connector.name()),
                some(&"metadata"),
                None,
                some(&key.name),
                Some(takes),
                some(&default),
                Some(example),
                some(&key.help),
            ]);
        }
    }
    let names = ["connector", "use", "guarantee", "option", "takes", "default", "example", "meaning"];
    let column = |i: usize| strings(rows.iter().map(|row| row[i].clone()));
    table(names.map(text).to_vec(), (0..names.len()).map(column).collect())
}

fn show_functions(like: Option<&str>) -> Result<Outcome> {
    let state = session_state();
    let mut all: Vec<(String, &str)> = state.scalar_functions().keys().map(|n| (n.clone(), "scalar")).collect();
    all.extend(state.aggregate_functions().keys().map(|n| (n.clone(), "aggregate")));
    all.extend(state.window_functions().keys().map(|n| (n.clone(), "window")));
    all.extend(["tumble", "hop", "cumulate"].map(|n| (n.to_owned(), "table")));
    all.sort();
    retain_like(&mut all, |f| &f.0, like)?;
    table(
        vec![text("name"), text("kind")],
        vec![strings(all.iter().map(|f| Some(f.0.clone()))), strings(all.iter().map(|f| Some(f.1.to_owned())))],
    )
}

impl Millstream {
    /// The objects of the catalog, by name, with `millstream.dead_letters` among them.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        let objects = self.objects.read();
        let mut all: Vec<ObjectInfo> = objects
            .streams
            .values()
            .map(|d| ObjectInfo {
                namespace: "public".to_owned(),
                name: d.name.clone(),
                kind: d.kind,
                schema: d.schema.clone(),
                primary_key: d.primary_key.iter().map(|k| d.schema.field(*k).name().clone()).collect(),
                sql: d.sql.clone(),
            })
            .collect();
        all.extend(objects.views.iter().map(|(name, v)| ObjectInfo {
            namespace: "public".to_owned(),
            name: name.clone(),
            kind: ObjectKind::View,
            schema: v.schema.clone(),
            primary_key: vec![],
            sql: v.sql.clone(),
        }));
        all.push(ObjectInfo {
            namespace: "millstream".to_owned(),
            name: "dead_letters".to_owned(),
            kind: ObjectKind::Stored,
            schema: super::dead_letters::schema(),
            primary_key: vec![],
            sql: String::new(),
        });
        if !self.access().is_open() {
            all.push(ObjectInfo {
                namespace: "millstream".to_owned(),
                name: audit_table::NAME.to_owned(),
                kind: ObjectKind::Stored,
                schema: audit_table::schema(),
                primary_key: vec![],
                sql: String::new(),
            });
        }
        all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        all
    }
}
