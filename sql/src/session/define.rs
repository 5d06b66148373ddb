//! What a CREATE statement defines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::connector::registry::Connectors;
use millstream_engine::format::stored::{check_storable, check_writable};
use millstream_engine::nearest::nearest;
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::runtime::{DeadLetterLimits, OnError};
use millstream_engine::table::{Retention, StreamLog};

use super::Millstream;
use super::column_names::unique_names;
use super::keys::{check_form, key_columns, with_key};
use super::metadata::{check_metadata, refuse_metadata, with_metadata};
use super::outcome::ObjectKind;
use super::reading::Reading;
use super::resolve::{take_shape, write_columns};
use super::settings::checkpoint_interval;
use super::tables::StreamDef;
use crate::catalog::{Maker, Resolved, columns_of, schema_of};
use crate::error::{Error, Result};
use crate::plan::lower::event_column;
use crate::plan::{Semantics, expression, refuse_unsteady, session_state, session_state_of};
use crate::statement::{CreateStream, Watermark};

/// A split without rows for this long stops holding the watermark.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

const CHECKPOINT_INTERVAL: OptionSpec =
    OptionSpec::new("checkpoint_interval", Takes::Duration, "5 s", "how often a derived stream commits")
        .otherwise("the setting");
const IDLE: OptionSpec =
    OptionSpec::new("idle_timeout", Takes::Duration, "1 min", "when a split stops holding the watermark")
        .otherwise("10 s");
const PARALLELISM: OptionSpec =
    OptionSpec::new("parallelism", Takes::Whole, "4", "tasks of a derived stream's operators").otherwise("the setting");
const DEAD_LETTER_LIMIT: OptionSpec =
    OptionSpec::new("dead_letter_limit", Takes::Whole, "1000", "rows kept for the stream").otherwise("100000");
const DEAD_LETTER_RETENTION: OptionSpec =
    OptionSpec::new("dead_letter_retention", Takes::Duration, "7 days", "how long they are kept at least")
        .otherwise("30 days");
const ON_ERROR: OptionSpec =
    OptionSpec::new("on_error", Takes::Text, "fail", "rows that fail are put aside, or stop the stream")
        .otherwise("dead_letter");

const RETENTION: OptionSpec =
    OptionSpec::new("retention", Takes::Duration, "7 days", "how long a changelog keeps its history")
        .otherwise("for ever");
const RETENTION_LIMIT: OptionSpec =
    OptionSpec::new("retention_limit", Takes::Duration, "30 days", "how long it keeps what its readers still need")
        .otherwise("7 days, or the retention");
const CONTENT_RETENTION: OptionSpec = OptionSpec::new(
    "content_retention",
    Takes::Duration,
    "30 days",
    "how long a stream that only grows keeps its rows",
)
.otherwise("for ever");
/// How long history that readers still need is kept at least, where nothing is said.
const USUAL_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const OWN: [OptionSpec; 6] = [CHECKPOINT_INTERVAL, IDLE, PARALLELISM, RETENTION, CONTENT_RETENTION, RETENTION_LIMIT];
/// Those of streams with a query.
const OF_QUERIES: [OptionSpec; 3] = [DEAD_LETTER_LIMIT, DEAD_LETTER_RETENTION, ON_ERROR];

/// Options that are Millstream's own, not a connector's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnOptions {
    pub(super) parallelism: Option<usize>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) checkpoint_interval: Option<Duration>,
    pub(super) on_error: OnError,
    pub(super) dead_letters: DeadLetterLimits,
    pub(super) keeps: Keeps,
}

/// How long a stream keeps history and content.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Keeps {
    history: Option<Retention>,
    content: Option<Retention>,
}

impl OwnOptions {
    /// Parts our own options from the connector's.
    pub(super) fn of(create: &CreateStream, connectors: &Connectors) -> Result<(Self, Option<(String, Options)>)> {
        let owner = format!("stream \"{}\"", create.name.name);
        let mut values = create.options.clone();
        let connector = values.remove("connector");
        let own = own_names(create).filter_map(|name| values.remove_entry(name)).collect();
        let mut own = Options::new(owner.clone(), own);
        let usual = DeadLetterLimits::default();
        let dead_letters = DeadLetterLimits {
            rows: own.value(&DEAD_LETTER_LIMIT, "a number of rows")?.unwrap_or(usual.rows),
            retention: own.duration(&DEAD_LETTER_RETENTION)?.unwrap_or(usual.retention),
        };
        let on_error = match own.text(&ON_ERROR).as_deref() {
            None | Some("dead_letter") => OnError::DeadLetter,
            Some("fail") => OnError::Fail,
            Some(other) => {
                let message = format!("option \"on_error\" of {owner} is '{other}'");
                return Err(Error::invalid(message).with_hint("Write on_error = 'dead_letter' or 'fail'."));
            }
        };
        let interval = own.text(&CHECKPOINT_INTERVAL).map(|text| checkpoint_interval(&text)).transpose();
        let result = OwnOptions {
            on_error,
            dead_letters,
            parallelism: own.value(&PARALLELISM, "a number from 1 to 256")?,
            idle_timeout: own.duration(&IDLE)?,
            keeps: keeps(&mut own, &owner)?,
            checkpoint_interval: interval
                .map_err(|e| e.context(format!("option \"checkpoint_interval\" of {owner}")))?,
        };
        if result.parallelism.is_some_and(|n: usize| n == 0 || n > 256) {
            return Err(Error::invalid(format!("option \"parallelism\" of {owner} is not a number from 1 to 256")));
        }
        match (connector, values.keys().next()) {
            (Some(name), _) => Ok((result, Some((name, Options::new(owner, values))))),
            (None, None) => Ok((result, None)),
            (None, Some(left)) => Err(without_connector(create, left, connectors)),
        }
    }
}

fn keeps(own: &mut Options, owner: &str) -> Result<Keeps> {
    let (history, content) = (own.duration(&RETENTION)?, own.duration(&CONTENT_RETENTION)?);
    let limit = own.duration(&RETENTION_LIMIT)?;
    if limit.is_some() && history.is_none() && content.is_none() {
        return Err(Error::invalid(format!("{owner} has option \"retention_limit\" and no \"retention\"")).with_hint(
            "Say how long history is kept, as in retention = '1 day', or leave both out to keep all of it.",
        ));
    }
    let up_to = |spec: &OptionSpec, kept: Duration| match limit.unwrap_or(USUAL_LIMIT.max(kept)) {
        limit if limit < kept => {
            let message = format!("option \"retention_limit\" of {owner} is less than its \"{}\"", spec.name);
            let hint = "It is how long rows are kept for readers that are behind: make it as long or longer.";
            Err(Error::invalid(message).with_hint(hint))
        }
        limit => Ok(limit),
    };
    let history = match history {
        Some(kept) => Some(Retention::new(kept, up_to(&RETENTION, kept)?)),
        None => None,
    };
    let content = match content {
        Some(kept) => Some(Retention::of_content(kept, up_to(&CONTENT_RETENTION, kept)?)),
        None => None,
    };
    Ok(Keeps { history, content })
}

impl Keeps {
    /// What counts for `def`.
    ///
    /// Errors where one is given that does not apply to such a stream.
    fn of(self, def: &StreamDef) -> Result<Option<Retention>> {
        let refuse = |why: &str, hint: &str| {
            Err(Error::unsupported(format!("stream \"{}\" {why}", def.name)).with_hint(hint.to_owned()))
        };
        match (def.kind, def.changelog) {
            (ObjectKind::Stored | ObjectKind::Derived, true) if self.content.is_some() => refuse(
                "changes: what it holds is what its query or its keys say",
                "Write retention to keep less of its history, and a condition on time in the query to keep less in it.",
            ),
            (ObjectKind::Stored | ObjectKind::Derived, false) if self.history.is_some() => refuse(
                "only grows: its history is what it holds",
                "Write content_retention to let rows go that are older; retention is for streams with a PRIMARY KEY and for \
                 queries whose results change.",
            ),
            (ObjectKind::Stored | ObjectKind::Derived, changelog) => {
                Ok(if changelog { self.history } else { self.content })
            }
            _ if self == Keeps::default() => Ok(None),
            _ => refuse("keeps no rows", "Leave retention out: it is for streams that keep their rows."),
        }
    }
}

/// The options of `create` that are not a connector's.
fn own_names(create: &CreateStream) -> impl Iterator<Item = &'static str> {
    let of_query = OF_QUERIES.into_iter().filter(|_| create.query.is_some());
    OWN.into_iter().chain(of_query).map(|spec| spec.name)
}

/// Options that a stream without a connector does not have.
fn without_connector(create: &CreateStream, option: &str, connectors: &Connectors) -> Error {
    let message = format!("stream \"{}\" has option \"{option}\" and no connector", create.name.name);
    let hint = match nearest(option, own_names(create).chain(["connector"])) {
        Some(near) => format!("Did you mean {near}?"),
        None => {
            let connectors = if create.query.is_some() { connectors.writable() } else { connectors.readable() };
            format!(
                "Add connector = '…', one of {}. Without one its options are: {}.",
                connectors.join(", "),
                own_names(create).collect::<Vec<_>>().join(", ")
            )
        }
    };
    Error::invalid(message).with_hint(hint)
}

/// The event-time column, and the bound that each row sets.
type EventColumn = (usize, Option<Arc<dyn PhysicalExpr>>);

impl Millstream {
    /// Checks `create` and gives the stream that it makes. What is wrong with it, also with what it reads, is
    /// found here; nothing is opened or found out after this. Columns that a connector knows are written into
    /// `create`, so that SHOW CREATE tells them.
    pub(super) fn make(
        self: &Arc<Self>,
        create: &mut CreateStream,
        parallelism: usize,
        reading: &Reading,
    ) -> Result<(StreamDef, Resolved)> {
        let maker = Maker::of(&reading.who);
        let connector = create.options.get("connector").and_then(|name| self.config().connectors.find(name));
        let fixed = connector.as_ref().map(|connector| connector.fix_paths(&mut create.options)).unwrap_or_default();
        if let Some(connector) = &connector {
            self.check_connector(create, &**connector, &reading.who)?;
        }
        let (resolved, reads) = self.resolve(create, parallelism, Semantics::NOW, fixed, &maker, reading)?;
        let mut def = self.define(create, create.to_string(), parallelism, &resolved, &maker)?;
        def.reads = reads;
        if def.log.is_some() {
            check_storable(&def.schema).map_err(|e| e.context(format!("stream \"{}\"", def.name)))?;
        }
        def.check_other_side(parallelism)?;
        Ok((def, resolved))
    }

    /// What `create` means by the rules of `semantics`, and the streams and views that it reads: looks at what a connector
    /// has, or plans the query. `found` is known of the connector's options already.
    pub(super) fn resolve(
        self: &Arc<Self>,
        create: &mut CreateStream,
        parallelism: usize,
        semantics: Semantics,
        found: BTreeMap<String, String>,
        maker: &Maker,
        reading: &Reading,
    ) -> Result<(Resolved, Vec<String>)> {
        let (_, connector) = OwnOptions::of(create, &self.config().connectors)?;
        let mut resolved = Resolved { options: found, ..Resolved::by(semantics) };
        let mut reads = vec![];
        let schema = match (&create.query, connector) {
            (None, Some((connector, options))) => {
                let connector = self.config().connectors.to_read(&connector)?;
                let options = self.opening(maker).options(&*connector, &options)?;
                let options = options.with_found(resolved.options.clone());
                check_metadata(create, &connector, connector.readable()?.form(&options))?;
                resolved.options.extend(connector.readable()?.find_options(&options)?);
                let options = options.with_found(resolved.options.clone());
                let form = connector.readable()?.form(&options);
                let shape = connector.readable()?.shape(&options)?;
                let schema = if create.columns.iter().all(|c| c.metadata.is_some()) {
                    let found = connector.own_columns(options)?;
                    let (found, all) = with_metadata(&with_key(&found, create), create);
                    write_columns(create, &found);
                    unique_names(&all, &create.name.name)?;
                    all
                } else {
                    declared(create)?
                };
                take_shape(&mut resolved, &shape, &schema);
                check_form(create, form, &schema)?;
                resolved.changelog |= form.is_changelog();
                schema
            }
            (None, None) => {
                refuse_metadata(create)?;
                declared(create)?
            }
            (Some(query), _) => {
                let planned = self.plan_query(query, parallelism, semantics, reading, Ok)?;
                unique_names(&planned.schema, &create.name.name)?;
                let output = &planned.lowered.output;
                resolved.changelog = !output.append_only;
                resolved.key = output.key.clone();
                resolved.event_time = event_column(&output.time);
                reads = planned.reads;
                planned.schema
            }
        };
        let stream = || format!("stream \"{}\"", create.name.name);
        resolved.columns = columns_of(&schema).map_err(|e| e.context(stream()))?;
        Ok((resolved, reads))
    }

    /// The stream that `create` makes as `resolved`, but for what it reads. Opens nothing and plans no query.
    pub(super) fn define(
        self: &Arc<Self>,
        create: &CreateStream,
        sql: String,
        parallelism: usize,
        resolved: &Resolved,
        maker: &Maker,
    ) -> Result<StreamDef> {
        let (own, connector) = OwnOptions::of(create, &self.config().connectors)?;
        let mut def = StreamDef {
            name: create.name.name.clone(),
            kind: ObjectKind::External,
            sql,
            schema: schema_of(&resolved.columns)?,
            semantics: resolved.semantics,
            primary_key: vec![],
            key: None,
            changelog: false,
            in_order: false,
            event_time: None,
            idle_timeout: own.idle_timeout.unwrap_or(IDLE_TIMEOUT),
            metadata: BTreeMap::new(),
            connector: None,
            opening: self.opening(maker),
            place: None,
            log: None,
            ingest: None,
            reads: vec![],
        };
        match (&create.query, connector) {
            (None, Some((connector, options))) => {
                let connector = self.config().connectors.to_read(&connector)?;
                def.connector = Some((connector, options.with_found(resolved.options.clone())));
                self.define_external(&mut def, create, resolved)?;
                if own.idle_timeout.is_none() && matches!(def.event_time, Some((_, None))) {
                    def.idle_timeout = super::tables::NEVER;
                }
            }
            (None, None) => self.define_stored(&mut def, create, own.keeps)?,
            (Some(_), connector) => {
                self.define_derived(&mut def, create, connector, parallelism, resolved, own.keeps)?
            }
        }
        if def.log.is_none() {
            own.keeps.of(&def)?;
        }
        Ok(def)
    }

    fn define_external(
        self: &Arc<Self>,
        def: &mut StreamDef,
        create: &CreateStream,
        resolved: &Resolved,
    ) -> Result<()> {
        for column in &create.columns {
            if let Some(key) = &column.metadata {
                def.metadata.insert(def.schema.index_of(&column.name)?, key.clone());
            }
        }
        (def.changelog, def.key) = (resolved.changelog, resolved.key.clone());
        def.primary_key = key_columns(create, &def.schema)?;
        if !def.primary_key.is_empty() {
            (def.changelog, def.key) = (true, Some(def.primary_key.clone()));
        }
        if let Some((connector, options)) = &def.connector {
            def.in_order = !def.primary_key.is_empty() || connector.readable()?.form(options).is_changelog();
        }
        let declared = self.event_time(create.watermark.as_ref(), &def.schema, &def.name, def.semantics)?;
        // Without one the source may tell the watermark itself.
        def.event_time = declared.or(resolved.event_time.map(|column| (column, None)));
        Ok(())
    }

    fn define_stored(self: &Arc<Self>, def: &mut StreamDef, create: &CreateStream, keeps: Keeps) -> Result<()> {
        def.kind = ObjectKind::Stored;
        def.primary_key = key_columns(create, &def.schema)?;
        def.changelog = !def.primary_key.is_empty();
        def.key = def.changelog.then(|| def.primary_key.clone());
        let time = self.event_time(create.watermark.as_ref(), &def.schema, &def.name, def.semantics)?;
        // Readers are told the watermark by the log.
        def.event_time = time.map(|(column, _)| (column, None));
        def.log = Some(self.log_of(def, keeps)?);
        def.ingest = Some(IngestSource::new(self.budget().clone()));
        Ok(())
    }

    fn define_derived(
        self: &Arc<Self>,
        def: &mut StreamDef,
        create: &CreateStream,
        connector: Option<(String, Options)>,
        parallelism: usize,
        resolved: &Resolved,
        keeps: Keeps,
    ) -> Result<()> {
        if !create.columns.is_empty() || create.watermark.is_some() || create.primary_key.is_some() {
            return Err(Error::unsupported(format!("stream \"{}\" declares columns and has a query", def.name))
                .with_hint("Leave the columns out: the query names them (SELECT a AS b)."));
        }
        def.changelog = resolved.changelog;
        def.key = resolved.key.clone();
        def.event_time = resolved.event_time.map(|c| (c, None));
        match connector {
            None => {
                def.kind = ObjectKind::Derived;
                def.log = Some(self.log_of(def, keeps)?);
            }
            Some((connector, options)) => {
                def.kind = ObjectKind::Written;
                let connector = self.config().connectors.to_write(&connector)?;
                let sink = connector.writable()?.open(def.sink_request(&*connector, &options, parallelism)?)?;
                def.place = sink.place();
                self.refuse_shared_place(def)?;
                def.connector = Some((connector, options));
            }
        }
        Ok(())
    }

    /// The tasks that `create` asks for.
    pub(super) fn own_parallelism(&self, create: &CreateStream) -> Result<Option<usize>> {
        Ok(OwnOptions::of(create, &self.config().connectors)?.0.parallelism)
    }

    fn log_of(&self, def: &StreamDef, keeps: Keeps) -> Result<Arc<StreamLog>> {
        check_writable(&def.schema).map_err(|e| e.context(format!("stream \"{}\"", def.name)))?;
        let (store, upkeep) = (self.store().clone(), self.upkeep().clone());
        Ok(StreamLog::new(store, &def.name, def.schema.clone(), def.changelog, keeps.of(def)?, upkeep))
    }

    /// Refuses a file or folder into which another stream is written: each would take the other's files for its own.
    fn refuse_shared_place(&self, def: &StreamDef) -> Result<()> {
        let Some(place) = &def.place else { return Ok(()) };
        let objects = self.objects.read();
        let Some(other) = objects.streams.values().find(|d| d.place == def.place && d.name != def.name) else {
            return Ok(());
        };
        let (name, place) = (&def.name, place.display());
        Err(Error::invalid(format!("stream \"{name}\": stream \"{}\" is written to \"{place}\" already", other.name))
            .with_hint("Give each stream a path of its own, or write one stream of both with UNION ALL."))
    }

    /// Refuses a watermark that is not a function of the row. At CREATE only: a stream that an older build took
    /// opens as it is.
    pub(super) fn refuse_unsteady_watermark(self: &Arc<Self>, create: &CreateStream, def: &StreamDef) -> Result<()> {
        let Some(watermark) = &create.watermark else { return Ok(()) };
        let columns = DFSchema::try_from_qualified_schema(def.name.as_str(), &def.schema)?;
        refuse_unsteady(
            &def.name,
            &expression(&session_state(), self.noting_resolver(&Reading::of_job()), &watermark.expr, &columns)?,
        )
    }

    /// The event-time column, and the bound that each row sets.
    pub(super) fn event_time(
        self: &Arc<Self>,
        watermark: Option<&Watermark>,
        schema: &SchemaRef,
        stream: &str,
        semantics: Semantics,
    ) -> Result<Option<EventColumn>> {
        let Some(watermark) = watermark else { return Ok(None) };
        let column = schema.index_of(&watermark.column).map_err(|_| {
            Error::invalid(format!("WATERMARK FOR \"{}\": stream \"{stream}\" has no such column", watermark.column))
        })?;
        let is_time = |t: &DataType| matches!(t, DataType::Timestamp(_, _));
        let data_type = schema.field(column).data_type();
        if !is_time(data_type) {
            return Err(Error::invalid(format!(
                "WATERMARK FOR \"{}\": the column is {data_type}, not a timestamp",
                watermark.column
            ))
            .with_hint("Declare it as TIMESTAMP; option timestamp_format says how it is written."));
        }
        let state = session_state_of(semantics);
        let df_schema = DFSchema::try_from_qualified_schema(stream, schema)?;
        let expr = expression(&state, self.noting_resolver(&Reading::of_job()), &watermark.expr, &df_schema)?;
        let bound = state.create_physical_expr(expr, &df_schema)?;
        if !is_time(&bound.data_type(schema)?) {
            return Err(Error::invalid(format!("the watermark of stream \"{stream}\" is not a timestamp"))
                .with_hint("Write it like WATERMARK FOR ts AS ts - INTERVAL '5 seconds'."));
        }
        Ok(Some((column, Some(bound))))
    }
}

fn declared(create: &CreateStream) -> Result<SchemaRef> {
    if create.columns.is_empty() {
        return Err(Error::invalid(format!("stream \"{}\" has no columns", create.name.name))
            .with_hint("Declare them, name a connector WITH (connector = …), or give a query AS SELECT …."));
    }
    let fields: Vec<_> = create.columns.iter().map(|c| c.field()).collect();
    let schema = Arc::new(Schema::new(fields));
    unique_names(&schema, &create.name.name)?;
    Ok(schema)
}
