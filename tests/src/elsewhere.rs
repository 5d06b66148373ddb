//! Tasks as they would run on two nodes: in two Tokio runtimes, between which rows go as bytes.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_engine::changes::Changes;
use millstream_engine::clock::Clock;
use millstream_engine::epoch::EpochMark;
use millstream_engine::memory::MemoryBudget;
use millstream_engine::runtime::{
    EdgePlace, Here, Local, Message, Queues, Receiver, Runtime, Sender, Transport, Worker,
};
use millstream_engine::time::EventTime;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::Result;

/// Jobs of this runtime have every other task in the runtime of `other`.
pub fn runtime(here: &Handle, other: &Handle, budget: Arc<MemoryBudget>) -> Runtime {
    let worker = |handle: &Handle| -> Arc<dyn Worker> {
        Arc::new(Local {
            cpu: handle.clone(),
            here: Here { io: handle.clone(), budget: budget.clone(), clock: Clock::default() },
        })
    };
    let workers = vec![worker(other), worker(here)];
    let nodes = [other.clone(), here.clone()];
    Runtime::new(here.clone(), here.clone(), budget).on(workers, Arc::new(Wire { nodes }))
}

/// Carries what crosses from one runtime to the other as bytes.
#[derive(Debug)]
struct Wire {
    nodes: [Handle; 2],
}

/// What is sent: an end of an epoch, or rows in Arrow's stream format, with their weights as the last column.
enum Sent {
    Mark([u64; 6]),
    Rows(Vec<u8>, bool),
}

impl Transport for Wire {
    fn connect(&self, place: EdgePlace) -> (Sender, Receiver) {
        let (from, to) = (self.nodes[place.from].clone(), self.nodes[place.to].clone());
        let near = EdgePlace { metrics: Arc::default(), budget: place.budget.clone(), ..place };
        let (sender, outgoing) = Queues.connect(near);
        let (incoming, receiver) = Queues.connect(place);
        let (tx, rx) = mpsc::channel(1);
        from.spawn(async move { send(outgoing, tx).await.expect("rows that can be sent") });
        to.spawn(async move { receive(rx, incoming).await.expect("rows as they were sent") });
        (sender, receiver)
    }
}

/// Sends what is `outgoing` until either end has gone.
async fn send(mut outgoing: Receiver, wire: mpsc::Sender<Sent>) -> Result<()> {
    while let Some(message) = outgoing.next().await {
        let sent = match message {
            Message::Mark(m) => {
                let end = u64::from(m.end);
                Sent::Mark([
                    m.epoch,
                    m.now.0 as u64,
                    m.watermark.0 as u64,
                    m.checkpoint.unwrap_or(0),
                    end,
                    m.depth as u64,
                ])
            }
            Message::Changes(changes) => {
                let weighted = changes.weights().is_some();
                Sent::Rows(encode(changes)?, weighted)
            }
        };
        if wire.send(sent).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn receive(mut wire: mpsc::Receiver<Sent>, incoming: Sender) -> Result<()> {
    while let Some(sent) = wire.recv().await {
        let gone = match sent {
            Sent::Mark([epoch, now, watermark, checkpoint, end, depth]) => {
                let checkpoint = (checkpoint > 0).then_some(checkpoint);
                let (now, watermark) = (EventTime(now as i64), EventTime(watermark as i64));
                let (end, depth) = (end == 1, depth as usize);
                let mark = EpochMark { epoch, now, watermark, checkpoint, end, depth };
                incoming.mark(mark).await
            }
            Sent::Rows(bytes, weighted) => incoming.send(decode(&bytes, weighted)?).await,
        };
        if gone.is_err() {
            break;
        }
    }
    Ok(())
}

fn encode(changes: Changes) -> Result<Vec<u8>> {
    let (rows, weights) = changes.into_parts();
    let rows = match weights {
        None => rows,
        Some(weights) => {
            let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new("weight", DataType::Int64, false)));
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(Int64Array::new(weights, None)) as ArrayRef);
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?
        }
    };
    let mut writer = StreamWriter::try_new(vec![], &rows.schema())?;
    writer.write(&rows)?;
    Ok(writer.into_inner()?)
}

fn decode(bytes: &[u8], weighted: bool) -> Result<Changes> {
    let rows = StreamReader::try_new(Cursor::new(bytes), None)?.next().ok_or("a stream without rows")??;
    if !weighted {
        return Ok(Changes::insertions(rows));
    }
    let last = rows.num_columns() - 1;
    let weights = rows.column(last).as_primitive::<Int64Type>().values().clone();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::new(rows.schema().project(&(0..last).collect::<Vec<_>>())?);
    Ok(Changes::weighted(
        RecordBatch::try_new_with_options(schema, rows.columns()[..last].to_vec(), &options)?,
        weights,
    )?)
}
