//! What a CREATE statement defines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::connector::ingest::IngestSource;
use millstream_engine::format::stored::{check_storable, check_writable};
use millstream_engine::options::Options;
use millstream_engine::table::StreamLog;

use super::Millstream;
use super::column_names::unique_names;
use super::keys::{check_form, key_columns, with_key};
use super::metadata::{check_metadata, refuse_metadata, with_metadata};
use super::outcome::ObjectKind;
use super::own_options::{Keeps, OwnOptions};
use super::reading::Reading;
use super::resolve::{take_shape, write_columns};
use super::tables::StreamDef;
use crate::catalog::{Maker, Resolved, columns_of, schema_of};
use crate::error::{Error, Result};
use crate::plan::lower::event_column;
use crate::plan::{Semantics, expression, refuse_unsteady, session_state, session_state_of};
use crate::statement::{CreateStream, Watermark};

/// A split without rows for this long stops holding the watermark.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

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
            (None, None) => self.define_stored(&mut def, create, &own)?,
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

    fn define_stored(self: &Arc<Self>, def: &mut StreamDef, create: &CreateStream, own: &OwnOptions) -> Result<()> {
        def.kind = ObjectKind::Stored;
        def.primary_key = key_columns(create, &def.schema)?;
        def.changelog = own.changes;
        def.key = create.primary_key.is_some().then(|| def.primary_key.clone());
        let time = self.event_time(create.watermark.as_ref(), &def.schema, &def.name, def.semantics)?;
        // Readers are told the watermark by the log.
        def.event_time = time.map(|(column, _)| (column, None));
        def.log = Some(self.log_of(def, own.keeps)?);
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
