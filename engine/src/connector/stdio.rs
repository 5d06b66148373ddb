//! `stdin` and `stdout`: a stream in a pipe.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::changelog::{Outgoing, op_schema, with_ops};
use crate::changes::Changes;
use crate::connector::registry::{Connector, Guarantee, Readable, SinkRequest, SourceRequest, Writable};
use crate::connector::{
    Commit, DeadLetter, Intake, Opening, Read, Readers, Sink, SinkWriter, Source, Split, Staged, Start, Unit,
    UnitReader,
};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::format::blocks::{Block, Blocks, Cut, Want};
use crate::format::form::{CHANGES, DEBEZIUM_JSON, Form};
use crate::format::metadata::{Layout, MetadataKey};
use crate::format::options::{CsvOptions, JsonOptions, ON_ERROR, TEXT};
use crate::format::write::{write_header, write_lines};
use crate::format::{Format, LineDecoder, Place, csv, json};
use crate::options::{OptionSpec, Options, Takes};

/// The one split of standard input.
const SPLIT: &str = "stdin";

/// The metadata of a row: its line.
const LINE: &str = "line";

const FORMAT: OptionSpec =
    OptionSpec::new("format", Takes::OneOf(&["json", "csv"]), "csv", "how the lines are written").or("json");
const READ_FORMAT: OptionSpec =
    OptionSpec::new("format", Takes::OneOf(&["json", "csv", DEBEZIUM_JSON]), "csv", "how the lines are written")
        .or("json");

/// The connector of standard input.
pub(crate) struct StdinConnector;

impl Connector for StdinConnector {
    fn name(&self) -> &str {
        "stdin"
    }

    fn about(&self) -> &str {
        "lines from standard input"
    }

    fn source(&self) -> Option<&dyn Readable> {
        Some(self)
    }
}

impl Readable for StdinConnector {
    fn options(&self) -> Vec<OptionSpec> {
        [&[READ_FORMAT, CHANGES, ON_ERROR], TEXT].concat()
    }

    fn form(&self, options: &Options) -> Form {
        Form::of(options, &READ_FORMAT, "json")
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn metadata(&self) -> Vec<MetadataKey> {
        vec![MetadataKey::new(
            LINE,
            DataType::Int64,
            "the number of the line that the row begins on, from 1 at each start",
        )]
    }

    fn scan(&self, request: SourceRequest) -> Result<Arc<dyn Source>> {
        open_source(request)
    }

    fn is_single(&self) -> bool {
        true
    }
}

/// The connector of standard output.
pub(crate) struct StdoutConnector;

impl Connector for StdoutConnector {
    fn name(&self) -> &str {
        "stdout"
    }

    fn about(&self) -> &str {
        "lines to standard output"
    }

    fn sink(&self) -> Option<&dyn Writable> {
        Some(self)
    }
}

impl Writable for StdoutConnector {
    fn options(&self) -> Vec<OptionSpec> {
        [&[FORMAT], TEXT].concat()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>> {
        open_sink(request)
    }

    fn is_single(&self) -> bool {
        true
    }
}

/// Opens standard input as a stream of lines.
fn open_source(mut request: SourceRequest) -> Result<Arc<dyn Source>> {
    let o = &mut request.options;
    let format = o.choice(&READ_FORMAT)?.unwrap_or("json");
    let fail = o.choice(&ON_ERROR)? == Some("fail");
    let form = Form::take(o, format)?;
    let decoding = match format {
        "csv" => Decoding::Csv(CsvOptions { form, ..CsvOptions::take(o)? }),
        _ => Decoding::Json(JsonOptions { form, ..JsonOptions::take(o)? }),
    };
    let layout = request.layout()?;
    request.options.finish()?;
    Ok(Arc::new(Stdin { layout, decoding, fail, input: || Box::new(std::io::stdin()) }))
}

enum Decoding {
    Json(JsonOptions),
    Csv(CsvOptions),
}

/// Standard input. It cannot be read again: after a restart, what comes counts as what follows.
struct Stdin {
    layout: Layout,
    decoding: Decoding,
    fail: bool,
    input: fn() -> Box<dyn std::io::Read + Send>,
}

/// Standard input as it is read.
struct OpenStdin {
    stdin: Arc<Stdin>,
    /// How much earlier runs have read.
    before: u64,
    handed_out: AtomicBool,
    /// Where it has ended.
    end: OnceLock<u64>,
}

impl Stdin {
    fn decoder(&self) -> Result<Box<dyn LineDecoder>> {
        let Layout { declared, projection, content, key, .. } = &self.layout;
        let mut decoder = match &self.decoding {
            Decoding::Json(options) => json::decoder(content.clone(), options, key, SPLIT.into()),
            Decoding::Csv(options) => csv::decoder(declared, projection, options, SPLIT.into(), None)?,
        };
        if self.layout.reads(LINE) {
            decoder.keep_places();
        }
        Ok(decoder)
    }
}

#[async_trait]
impl Source for Stdin {
    fn describe(&self) -> String {
        let format = if matches!(self.decoding, Decoding::Csv(_)) { Format::Csv } else { Format::Json };
        format!("stdin ({})", format.name())
    }

    /// It ends when its writer closes it, which is waited for.
    fn bounded(&self) -> bool {
        true
    }

    /// It is this process's.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let (before, handed_out) = (opening.consumed.prefix(SPLIT), AtomicBool::new(false));
        Ok(Arc::new(OpenStdin { stdin: self, before, handed_out, end: OnceLock::new() }))
    }
}

#[async_trait]
impl Intake for OpenStdin {
    fn splits(&self) -> Vec<Split> {
        vec![Split { name: SPLIT.into(), end: self.end.get().copied(), min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let handed_out = self.handed_out.swap(true, Ordering::Relaxed);
        Ok((!handed_out).then(|| Unit { split: SPLIT.into(), start: self.before, end: u64::MAX }))
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    fn ended(&self, _unit: &Unit, at: u64) {
        self.end.get_or_init(|| at);
    }
}

#[async_trait]
impl Readers for OpenStdin {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let Stdin { layout, decoding, fail, input } = &*self.stdin;
        let records = match decoding {
            Decoding::Csv(options) if options.newlines_in_values => Cut::Record(options.clone()),
            _ => Cut::Newline,
        };
        let want = Want { start: 0, end: u64::MAX, cut: records, eager: true, fragile: None };
        let (sender, blocks) = mpsc::channel(4);
        let input = *input;
        // A thread of its own: one of the runtime's would keep it from ending while it waits for input.
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut blocks = Blocks::new(input(), want);
            while let Some(block) = blocks.next().transpose() {
                let failed = block.is_err();
                if sender.blocking_send(block.map_err(|e| Error::from(e).context("stdin"))).is_err() || failed {
                    break;
                }
            }
        })?;
        Ok(Box::new(StdinReader {
            blocks,
            block: None,
            decoder: self.stdin.decoder()?,
            layout: layout.clone(),
            before: unit.start,
            line: 1,
            fail: *fail,
        }))
    }
}

struct StdinReader {
    blocks: mpsc::Receiver<Result<Block>>,
    /// The block being decoded, and how much of it has been.
    block: Option<(Block, usize)>,
    decoder: Box<dyn LineDecoder>,
    layout: Layout,
    before: u64,
    line: u64,
    fail: bool,
}

impl StdinReader {
    fn decode(&mut self, block: Block, used: usize) -> Result<Read> {
        let (mut rows, mut dead, mut done) = (None, vec![], used);
        if used < block.bytes.len() {
            let at = Place { position: block.position + used as u64, line: Some(self.line) };
            let decoded = self.decoder.decode(&block.bytes[used..], at)?;
            self.line += decoded.lines;
            done += decoded.bytes;
            dead = decoded.dead;
            let places = decoded.places;
            let lines = places.iter().map(|place| place.line.and_then(|n| i64::try_from(n).ok()));
            let lines = || Int64Array::from_iter(lines.clone());
            let composed = self.layout.compose(decoded.rows, |_| Ok(Arc::new(lines())))?;
            rows = Some(Changes::of_rows(composed, decoded.weights)?);
        }
        let mut position = block.position + done as u64;
        if done < block.bytes.len() {
            self.block = Some((block, done));
        } else {
            position = block.after;
            if let Some(d) = block.damage {
                let line = Some(self.line);
                dead.push(DeadLetter { split: SPLIT.into(), position: d.position, line, reason: d.reason, raw: d.raw });
                self.line += 1;
            }
        }
        if let (true, Some(first)) = (self.fail, dead.first()) {
            let line = first.line.unwrap_or_default();
            return Err(Error::data(format!("stdin, line {line}, position {}: {}", first.position, first.reason)));
        }
        dead.iter_mut().for_each(|d| d.position += self.before);
        let rows = rows.unwrap_or_else(|| Changes::empty(self.layout.schema().clone()));
        Ok(Read { rows, position: self.before + position, dead, watermark: None })
    }
}

#[async_trait]
impl UnitReader for StdinReader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if let Some((block, used)) = self.block.take() {
            return self.decode(block, used).map(Some);
        }
        match self.blocks.recv().await.transpose()? {
            Some(block) => self.decode(block, 0).map(Some),
            None => Ok(None),
        }
    }
}

/// Opens standard output, which shows each epoch as soon as it is whole.
fn open_sink(mut request: SinkRequest) -> Result<Arc<dyn Sink>> {
    let o = &mut request.options;
    let format = if o.choice(&FORMAT)? == Some("csv") { Format::Csv } else { Format::Json };
    let csv = if format == Format::Csv { CsvOptions::take(o)? } else { CsvOptions::default() };
    request.options.finish()?;
    let head = Arc::new(AtomicBool::new(format == Format::Csv && csv.header));
    let SinkRequest { schema, retracts, key, .. } = request;
    Ok(Arc::new(Stdout { format, csv, schema, retracts, key, head }))
}

/// Standard output.
#[derive(Clone)]
struct Stdout {
    format: Format,
    csv: CsvOptions,
    schema: SchemaRef,
    retracts: bool,
    key: Option<Vec<usize>>,
    /// Whether a header is still to be written.
    head: Arc<AtomicBool>,
}

#[async_trait]
impl Sink for Stdout {
    async fn start(&self, _start: Start<'_>) -> Result<()> {
        Ok(())
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        let outgoing = Outgoing::new(self.schema.clone(), self.retracts, self.key.clone());
        Ok(Box::new(StdoutWriter { sink: self.clone(), outgoing, text: vec![] }))
    }

    async fn commit(&self, _commit: &Commit<'_>) -> Result<()> {
        Ok(())
    }

    fn tells_time(&self) -> bool {
        false
    }

    fn takes_retractions(&self) -> bool {
        self.retracts
    }

    fn describe(&self) -> String {
        format!("stdout ({})", self.format.name())
    }
}

/// Collects the lines of an epoch and prints them at its end.
struct StdoutWriter {
    sink: Stdout,
    outgoing: Outgoing,
    text: Vec<u8>,
}

impl StdoutWriter {
    fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        write_lines(self.sink.format, &self.sink.csv, rows, &mut self.text)
    }
}

#[async_trait]
impl SinkWriter for StdoutWriter {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.append(&rows),
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        if let Some((changes, ops)) = self.outgoing.end()? {
            self.append(&with_ops(changes.rows(), &ops)?)?;
        }
        if self.text.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        let sink = self.sink.clone();
        let print = move || -> Result<()> {
            let mut out = std::io::stdout().lock();
            // Under the lock, so that the header comes before the rows of all tasks.
            if sink.head.swap(false, Ordering::Relaxed) {
                let mut header = vec![];
                let schema = if sink.retracts { op_schema(&sink.schema) } else { sink.schema.clone() };
                write_header(&sink.csv, &schema, &mut header);
                out.write_all(&header)?;
            }
            out.write_all(&text)?;
            Ok(out.flush()?)
        };
        let ended = |e| Error::internal(format!("a writing thread ended early: {e}")).with_source(e);
        spawn_blocking(print).await.map_err(ended)?.map_err(|e| e.context("stdout"))
    }

    async fn stage(&mut self, _checkpoint: u64) -> Result<Vec<Staged>> {
        Ok(vec![])
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.text.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;
    use std::time::Duration;

    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int64Type, Schema};

    use parking_lot::Mutex;

    use super::*;
    use crate::connector::Opened;
    use crate::memory::MemoryBudget;
    use crate::options::Options;

    static PIPE: OnceLock<Mutex<std::io::PipeReader>> = OnceLock::new();

    struct Piped;
    impl std::io::Read for Piped {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            PIPE.get().expect("set").lock().read(out)
        }
    }

    #[tokio::test]
    async fn a_line_in_a_row_out_while_the_pipe_is_open() {
        let (reader, mut pipe) = std::io::pipe().expect("a pipe");
        PIPE.get_or_init(|| Mutex::new(reader));
        let fields = ["id", "line"].map(|name| Field::new(name, DataType::Int64, true));
        let declared = Arc::new(Schema::new(fields.to_vec()));
        let layout = Layout::new(&declared, &[0, 1], &BTreeMap::from([(1, LINE.to_owned())])).expect("columns");
        let decoding = Decoding::Csv(CsvOptions::default());
        let stdin: Arc<dyn Source> = Arc::new(Stdin { layout, decoding, fail: false, input: || Box::new(Piped) });
        let mut opening = Opening::new(MemoryBudget::new(0));
        opening.consumed.add(SPLIT, 0..100);
        let Opened { intake, readers } = Opened::of(&stdin, opening).await.expect("opens");
        let unit = intake.next_unit().await.expect("open").expect("one unit");
        assert_eq!((unit.start, unit.end), (100, u64::MAX));
        assert_eq!(intake.next_unit().await.expect("open"), None);
        let mut stdin = readers.read(&unit).await.expect("opens");
        let mut lines = vec![];
        let mut next = async || match tokio::time::timeout(Duration::from_millis(200), stdin.next()).await {
            Ok(read) => read.expect("readable").map(|r| {
                lines.extend_from_slice(r.rows.rows().column(1).as_primitive::<Int64Type>().values());
                (r.rows.num_rows(), r.position, r.dead.len())
            }),
            Err(_) => Some((0, 0, 0)),
        };
        pipe.write_all(b"id\n1\n").expect("open");
        assert_eq!(next().await, Some((1, 105, 0)));
        pipe.write_all(b"2\n3").expect("open");
        assert_eq!(next().await, Some((1, 107, 0)));
        assert_eq!(next().await, Some((0, 0, 0)), "half a line is not read");
        pipe.write_all(b"x\n4").expect("open");
        assert_eq!(next().await, Some((0, 110, 1)));
        drop(pipe);
        assert_eq!(next().await, Some((1, 111, 0)));
        assert_eq!(next().await, None);
        assert_eq!(lines, [2, 3, 5]);
        assert_eq!(intake.splits()[0].end, None);
        intake.ended(&unit, 111);
        assert_eq!(intake.splits()[0].end, Some(111));
    }

    #[test]
    fn formats_that_have_no_lines_are_refused() {
        let options = BTreeMap::from([("format".to_owned(), "parquet".to_owned())]);
        let schema = Arc::new(Schema::empty());
        let request = SinkRequest {
            stream: "s".into(),
            schema,
            retracts: false,
            key: None,
            options: Options::new("stream \"s\"", options),
            parallelism: 1,
        };
        assert!(open_sink(request).is_err());
    }
}
