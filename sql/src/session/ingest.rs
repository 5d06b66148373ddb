//! Rows that clients send as Arrow batches: a bulk ingest goes in whole or not at all; a put goes in batch by batch, for
//! as long as it lasts.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use millstream_engine::connector::spool::{Spool, Spooled};
use tokio::sync::mpsc;

use super::entry::statement_of;
use super::ingested::ingested;
use super::intake::Intake;
use super::outcome::IngestMode;
use super::sql_type::sql_type;
use super::tables::StreamDef;
use super::{Millstream, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::rights::{Need, Principal, Right};
use crate::statement::{CreateStream, DropObject, Name, ObjectKind, Statement, quote_name};

/// Batches of a put that are handed in and not known to be committed; their bytes are bounded where they wait.
const UNDER_WAY: usize = 4096;
/// Acknowledgements that wait for the client.
const UNREAD: usize = 256;

/// Where a bulk ingest goes.
struct Target {
    stream: String,
    mode: IngestMode,
    /// The columns that the stream has, or will have.
    schema: SchemaRef,
    /// What makes it, unless it is there.
    create: Option<CreateStream>,
    who: Principal,
}

impl Session {
    /// As [`Millstream::ingest`], where who asks may: it must have the right to make the stream where that is asked for.
    pub async fn ingest(
        &self,
        stream: &str,
        mode: IngestMode,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        let ms = &self.millstream;
        let is_there = ms.objects.read().streams.contains_key(stream);
        let need = match mode {
            IngestMode::Append => Need::On(Right::Write, stream),
            IngestMode::CreateAppend if is_there => Need::On(Right::Write, stream),
            IngestMode::Create | IngestMode::CreateAppend => Need::OnAll(Right::Admin),
            IngestMode::Replace => Need::On(Right::Admin, stream),
        };
        let what = format!("ingest into {}", quote_name(stream));
        self.ask(need).inspect_err(|e| self.note_text(&what, false, Some(e.message())))?;
        if !is_there || mode == IngestMode::Replace {
            self.note_text(&what, true, None);
        }
        let rows = self.while_writing(rows, stream);
        ms.ingest_by(&self.who, stream, mode, schema, rows).await
    }

    /// As [`Millstream::put`], for as long as who asks may write to `stream`.
    pub fn put(
        &self,
        stream: &str,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<BoxStream<'static, Result<u64>>> {
        let refused = |e: &Error| {
            self.note_text(&format!("put into {}", quote_name(stream)), false, Some(e.message()));
        };
        self.ask(Need::On(Right::Write, stream)).inspect_err(refused)?;
        self.millstream.put(stream, self.while_writing(rows, stream))
    }
}

impl Millstream {
    /// Appends rows to a stored stream and waits until they are durable. Columns match by name; missing
    /// ones become null. Gives the number of rows.
    ///
    /// The rows are kept aside until all have come, and go in together: after an error none of them is there, nor a
    /// stream that was to be made for them.
    pub async fn ingest(
        self: &Arc<Self>,
        stream: &str,
        mode: IngestMode,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        self.ingest_by(&Principal::owner(), stream, mode, schema, rows).await
    }

    async fn ingest_by(
        self: &Arc<Self>,
        who: &Principal,
        stream: &str,
        mode: IngestMode,
        schema: SchemaRef,
        mut rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        let target = self.target(who, stream, mode, &schema)?;
        let nothing = |e: Error| e.context("nothing was ingested");
        let folder = self.store().scratch();
        let held = self.budget().account(format!("a bulk ingestion into stream \"{stream}\""));
        let mut spool = Spool::new(folder, target.schema.clone(), held);
        while let Some(batch) = rows.next().await {
            let batch = batch.and_then(|b| ingested(&b, &target.schema, stream)).map_err(nothing)?;
            spool = spool.add(batch).await.map_err(|e| nothing(e.into()))?;
        }
        let rows = spool.finish().await.map_err(|e| nothing(e.into()))?;
        // From here on it does not matter whether the client waits.
        self.to_the_end(self.clone().take_in(target, rows)).await
    }

    fn target(&self, who: &Principal, stream: &str, mode: IngestMode, schema: &SchemaRef) -> Result<Target> {
        let found = self.objects.read().streams.get(stream).cloned();
        let (stream, who) = (stream.to_owned(), who.clone());
        match (mode, found) {
            (IngestMode::Create, Some(_)) => Err(Error::exists(format!("stream \"{stream}\" exists already"))
                .with_hint("Ingest with mode append or replace.")),
            (IngestMode::Append | IngestMode::CreateAppend, Some(def)) => {
                self.intake(&def)?;
                Ok(Target { stream, mode, schema: def.schema.clone(), create: None, who })
            }
            (IngestMode::Append, None) => Err(self.missing("stream ", &stream)),
            (IngestMode::Create | IngestMode::CreateAppend, None) | (IngestMode::Replace, _) => {
                let or_replace = if mode == IngestMode::Replace { "OR REPLACE " } else { "" };
                let (schema, create) = stream_for(&stream, schema, or_replace)?;
                Ok(Target { stream, mode, schema, create: Some(create), who })
            }
        }
    }

    /// Makes the stream, if it is to be made, and commits the rows.
    async fn take_in(self: Arc<Self>, target: Target, rows: Spooled) -> Result<u64> {
        let count = rows.rows();
        let fresh = match target.create {
            None => false,
            Some(create) => {
                let parallelism = self.config().parallelism;
                self.clone().create_stream(create, parallelism, true, target.who.clone()).await?;
                target.mode != IngestMode::Replace
            }
        };
        let taken = async {
            let def = self.stream(&target.stream)?;
            if def.schema != target.schema {
                let message = format!("stream \"{}\" was changed while its rows came", target.stream);
                return Err(Error::new(ErrorKind::Unavailable, message).with_hint("Send them again."));
            }
            let intake = self.intake(&def)?;
            intake.push(rows).await?;
            intake.settle().await
        };
        if let Err(e) = taken.await {
            if fresh {
                let name = Name { schema: None, name: target.stream };
                let drop = DropObject { kind: ObjectKind::Stream, name, if_exists: true, cascade: false };
                // What is said is why the rows did not go in.
                let _ = self.drop_object(drop, target.who).await;
            }
            return Err(e);
        }
        Ok(count)
    }

    /// Appends rows to a stored stream as they come, for as long as they come. Gives, whenever more batches are durable,
    /// how many rows of this put are: after each batch, or after several for a client that does not listen.
    ///
    /// After an error the batches that were acknowledged are there, and those before the faulty one.
    pub fn put(
        self: &Arc<Self>,
        stream: &str,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<BoxStream<'static, Result<u64>>> {
        let def = self.stream(stream)?;
        let intake = Arc::new(self.intake(&def)?);
        let (told, acknowledged) = mpsc::channel(UNREAD);
        let put = Put { def, intake, under_way: VecDeque::new(), durable: 0, unsaid: false, told };
        self.runtime().io.spawn(put.run(rows));
        let acknowledged = futures::stream::unfold(acknowledged, |mut acknowledged| async move {
            acknowledged.recv().await.map(|one| (one, acknowledged))
        });
        Ok(acknowledged.boxed())
    }
}

/// The statement that makes `stream` for rows of `schema`, and the columns that it has then.
fn stream_for(stream: &str, schema: &Schema, or_replace: &str) -> Result<(SchemaRef, CreateStream)> {
    let column = |f: &Arc<Field>| Ok(format!("{} {}", quote_name(f.name()), sql_type(f.data_type())?));
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?.join(", ");
    let sql = format!("CREATE {or_replace}STREAM {} ({columns})", quote_name(stream));
    let Statement::CreateStream(create) = statement_of(&sql)? else {
        return Err(Error::internal("a stream is made by another statement"));
    };
    Ok((Arc::new(Schema::new(create.columns.iter().map(|c| c.field()).collect::<Vec<_>>())), *create))
}

/// A put that is under way.
struct Put {
    def: Arc<StreamDef>,
    intake: Arc<Intake>,
    /// The rows of each batch that was handed in.
    under_way: VecDeque<u64>,
    durable: u64,
    /// The client has not been told of all that is durable.
    unsaid: bool,
    told: mpsc::Sender<Result<u64>>,
}

/// Waits for a commit; gives how many batches it was asked for.
type Settling = BoxFuture<'static, (usize, Result<()>)>;

impl Put {
    async fn run(mut self, rows: BoxStream<'static, Result<RecordBatch>>) {
        let told = self.told.clone();
        let ended = tokio::select! {
            ended = self.go_on(rows) => ended,
            // The client has gone: what it sent may or may not be there.
            () = told.closed() => return,
        };
        let last = match ended {
            Ok(()) if self.unsaid => Ok(self.durable),
            Ok(()) => return,
            Err(e) if self.durable == 0 => Err(e),
            Err(e) => Err(e.context(format!("after {} rows, which are committed", self.durable))),
        };
        let _ = told.send(last).await;
    }

    async fn go_on(&mut self, mut rows: BoxStream<'static, Result<RecordBatch>>) -> Result<()> {
        let mut settling: Option<Settling> = None;
        let mut ended: Option<Result<()>> = None;
        loop {
            if settling.is_none() && !self.under_way.is_empty() {
                let (intake, asked) = (self.intake.clone(), self.under_way.len());
                settling = Some(async move { (asked, intake.settle().await) }.boxed());
            }
            let settled = async {
                match &mut settling {
                    Some(settling) => settling.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (batches, settled) = settled => {
                    settling = None;
                    settled?;
                    self.acknowledge(batches);
                }
                batch = rows.next(), if ended.is_none() && self.under_way.len() < UNDER_WAY => match batch {
                    None => ended = Some(Ok(())),
                    Some(batch) => {
                        if let Err(e) = self.push(batch).await {
                            // What came before it is still to be committed.
                            ended = Some(Err(e));
                        }
                    }
                },
            }
            if self.under_way.is_empty()
                && let Some(ended) = ended.take()
            {
                return ended;
            }
        }
    }

    async fn push(&mut self, batch: Result<RecordBatch>) -> Result<()> {
        let batch = ingested(&batch?, &self.def.schema, &self.def.name)?;
        let rows = batch.num_rows() as u64;
        self.intake.push(batch).await?;
        self.under_way.push_back(rows);
        Ok(())
    }

    fn acknowledge(&mut self, batches: usize) {
        for rows in self.under_way.drain(..batches.min(self.under_way.len())) {
            self.durable += rows;
            // A client that does not listen is told the last figure.
            self.unsaid = self.told.try_send(Ok(self.durable)).is_err();
        }
    }
}
