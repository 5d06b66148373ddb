//! Arrow IPC from elsewhere: what a message says of itself is looked at before it is believed.
//!
//! Arrow's readers make room for as many bytes as a message claims to have, or to unpack to, and unpack LZ4 until it ends: a few
//! hundred bytes are enough to end a process. Here a message takes memory as its bytes come, and is decoded once its claims hold:
//! its buffers lie in its body, and unpack to no more than is taken.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{
    self, Block, CompressionType, Endianness, Message, MessageHeader, RecordBatch as Described, root_as_footer,
    root_as_message,
};

/// The longest description of a message, and of a file.
const MOST_HEAD: usize = 16 << 20;
/// The most that a message unpacks to, wherever it comes from.
const MOST_MESSAGE: usize = 8 << 30;
/// What a file ends with, behind the length of its description.
const MAGIC: &[u8] = b"ARROW1";
/// What a row counts as, at least, of what a message may unpack to: there are columns that take nothing.
const ROW_BYTES: usize = 8;
/// The most values of a column of a message.
const MOST_VALUES: i64 = 1 << 31;
/// What stands before the length of a message.
const CONTINUATION: u32 = u32::MAX;
/// An LZ4 frame, by lz4_Frame_format.md: its first bytes, and flags that say what else stands in its header.
const LZ4_MAGIC: u32 = 0x184D_2204;
const LZ4_BLOCK_CHECKSUM: u8 = 1 << 4;
const LZ4_CONTENT_SIZE: u8 = 1 << 3;
const LZ4_DICTIONARY: u8 = 1;

/// The bytes that a message, described by `head`, takes beside its `body` when it is unpacked.
///
/// Errors when the buffers of it have more than `most` bytes, or it is not what it says.
pub fn unpacked(head: &[u8], body: &[u8], most: usize) -> Result<usize, ArrowError> {
    let message = root_as_message(head).map_err(|e| broken(format!("a message has no description: {e}")))?;
    unpacked_message(&message, body, most)
}

fn unpacked_message(message: &Message, body: &[u8], most: usize) -> Result<usize, ArrowError> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => return Ok(0),
    };
    let batch = batch.ok_or_else(|| broken("a message has no rows"))?;
    let nodes = batch.nodes().into_iter().flatten().map(|node| node.length());
    let rows = most / ROW_BYTES;
    if usize::try_from(batch.length()).map_or(true, |n| n > rows)
        || !nodes.into_iter().all(|n| (0..=MOST_VALUES).contains(&n))
    {
        return Err(broken(format!("a message has more than {rows} rows")));
    }
    let mut total = 0_usize;
    for bytes in buffers(&batch, body) {
        total = total.saturating_add(bytes?);
        if total > most {
            return Err(broken(format!("it unpacks to more than {most} bytes")));
        }
    }
    Ok(if batch.compression().is_some() { total } else { 0 })
}

/// What each buffer of `batch` in `body` unpacks to.
fn buffers<'a>(batch: &Described<'a>, body: &'a [u8]) -> impl Iterator<Item = Result<usize, ArrowError>> + 'a {
    let codec = batch.compression().map(|compression| compression.codec());
    batch.buffers().into_iter().flatten().map(move |buffer| {
        let place = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = place.and_then(|(from, length)| body.get(from..from.checked_add(length)?));
        let bytes = bytes.ok_or_else(|| broken("a buffer lies outside its message"))?;
        let Some(codec) = codec.filter(|_| !bytes.is_empty()) else { return Ok(bytes.len()) };
        let (size, packed) = bytes.split_first_chunk::<8>().ok_or_else(|| broken("a buffer is cut off"))?;
        // Of -1 the bytes are as they are.
        let size = match i64::from_le_bytes(*size) {
            -1 => return Ok(packed.len()),
            size => usize::try_from(size).map_err(|_| broken("a buffer unpacks to less than nothing"))?,
        };
        if codec == CompressionType::LZ4_FRAME && size > 0 {
            let (most, block) = lz4_most(packed).ok_or_else(|| broken("a buffer is not what LZ4 packs"))?;
            if most >= size.saturating_add(block) {
                return Err(broken("a buffer unpacks to more than it says"));
            }
        }
        Ok(size)
    })
}

/// The most that the frame in `packed` unpacks to, and that a block of it does; `None` where there is no whole frame.
fn lz4_most(packed: &[u8]) -> Option<(usize, usize)> {
    let (magic, rest) = packed.split_first_chunk::<4>()?;
    let [flags, sizes] = *rest.first_chunk::<2>()?;
    let block = match sizes >> 4 & 7 {
        size @ 4..=7 => 1_usize << (8 + 2 * size),
        _ => return None,
    };
    let has = |flag: u8, bytes: usize| if flags & flag == 0 { 0 } else { bytes };
    let header = 6 + has(LZ4_CONTENT_SIZE, 8) + has(LZ4_DICTIONARY, 4) + 1;
    let mut rest = packed.get(header..).filter(|_| u32::from_le_bytes(*magic) == LZ4_MAGIC)?;
    let mut most = 0_usize;
    loop {
        let (size, behind) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            return Some((most, block));
        }
        let bytes = (size & (u32::MAX >> 1)) as usize;
        // The highest bit says that the block is as it is.
        most = most.saturating_add(if size >> 31 == 1 { bytes } else { block });
        rest = behind.get(bytes.checked_add(has(LZ4_BLOCK_CHECKSUM, 4))?..)?;
    }
}

fn broken(why: impl Into<String>) -> ArrowError {
    ArrowError::IpcError(why.into())
}

/// The batches of a stream, read as they are asked for.
pub struct IpcStream<R> {
    input: R,
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    most: usize,
}

/// A message.
struct Parts {
    head: Vec<u8>,
    body: Buffer,
    unpacked: usize,
}

impl<R: Read> IpcStream<R> {
    /// Reads `input`, all of which unpacks to at most `most` bytes.
    ///
    /// Errors when it does not begin with a schema.
    pub fn new(mut input: R, most: usize) -> Result<Self, ArrowError> {
        let none = || broken("it has no schema");
        let Parts { head, .. } = message(&mut input, most)?.ok_or_else(none)?;
        let first = root_as_message(&head).map_err(|e| broken(e.to_string()))?;
        let schema = schema_of(first.header_as_schema())?;
        Ok(IpcStream { input, schema: Arc::new(schema), dictionaries: HashMap::new(), most })
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The next batch; `room` is asked before a message is unpacked, with the bytes that it will take.
    pub fn next_with<E: From<ArrowError>>(
        &mut self,
        mut room: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Option<RecordBatch>, E> {
        while let Some(Parts { head, body, unpacked }) = message(&mut self.input, self.most)? {
            self.most = self.most.saturating_sub(unpacked.max(body.len()));
            room(unpacked.saturating_add(body.len()))?;
            if let Some(batch) = decoded(&head, &body, &self.schema, &mut self.dictionaries)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for IpcStream<R> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with(|_| Ok::<_, ArrowError>(())).transpose()
    }
}

/// The batches of a file, read as they are asked for.
pub struct IpcFile<R> {
    input: R,
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Where the batches are that have not been read.
    places: std::vec::IntoIter<i64>,
    /// The most that a message unpacks to.
    most: usize,
}

impl<R: Read + Seek> IpcFile<R> {
    /// Reads what `input` says of itself, and its dictionaries.
    pub fn new(input: R) -> Result<Self, ArrowError> {
        IpcFile::with_most(input, MOST_MESSAGE)
    }

    /// The same of a file each message of which unpacks to at most `most` bytes.
    pub fn with_most(mut input: R, most: usize) -> Result<Self, ArrowError> {
        let tail = 4 + MAGIC.len();
        let end = input.seek(SeekFrom::End(0))?.checked_sub(tail as u64).ok_or_else(|| broken("it is cut off"))?;
        input.seek(SeekFrom::Start(end))?;
        let (length, magic) = (number(&mut input)?, exactly(&mut input, MAGIC.len())?);
        let length = length.map(u64::from).filter(|length| magic == MAGIC && *length <= end.min(MOST_HEAD as u64));
        let length = length.ok_or_else(|| broken("it does not end as a file does"))?;
        input.seek(SeekFrom::Start(end - length))?;
        let description = exactly(&mut input, length as usize)?;
        let footer = root_as_footer(&description).map_err(|e| broken(format!("it has no description: {e}")))?;
        let schema = schema_of(footer.schema())?;
        let dictionaries: Vec<i64> = footer.dictionaries().into_iter().flatten().map(Block::offset).collect();
        let batches: Vec<i64> = footer.recordBatches().into_iter().flatten().map(Block::offset).collect();
        let (schema, places) = (Arc::new(schema), batches.into_iter());
        let mut file = IpcFile { input, schema, dictionaries: HashMap::new(), places, most };
        for place in dictionaries {
            file.read_at(place)?;
        }
        Ok(file)
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The rows of the message at `place`, if it has any.
    fn read_at(&mut self, place: i64) -> Result<Option<RecordBatch>, ArrowError> {
        let place = u64::try_from(place).map_err(|_| broken("a message lies before the file"))?;
        if self.input.stream_position()? != place {
            self.input.seek(SeekFrom::Start(place))?;
        }
        let message = message(&mut self.input, self.most)?;
        let Parts { head, body, .. } = message.ok_or_else(|| broken("a message is not where it should be"))?;
        decoded(&head, &body, &self.schema, &mut self.dictionaries)
    }
}

impl<R: Read + Seek> Iterator for IpcFile<R> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.places.next().map(|place| self.read_at(place))?;
        Some(rows.and_then(|rows| rows.ok_or_else(|| broken("a message has no rows"))))
    }
}

/// The columns that are described.
fn schema_of(described: Option<ipc::Schema<'_>>) -> Result<Schema, ArrowError> {
    let described = described.ok_or_else(|| broken("it has no schema"))?;
    match described.endianness() {
        Endianness::Little => Ok(fb_to_schema(described)),
        _ => Err(broken("its numbers have their highest byte first, which is not read")),
    }
}

/// The rows of a message that was measured; none of a dictionary, which is kept.
fn decoded(
    head: &[u8],
    body: &Buffer,
    schema: &SchemaRef,
    dictionaries: &mut HashMap<i64, ArrayRef>,
) -> Result<Option<RecordBatch>, ArrowError> {
    let message = root_as_message(head).map_err(|e| broken(e.to_string()))?;
    let version = message.version();
    if let Some(batch) = message.header_as_record_batch() {
        return read_record_batch(body, batch, schema.clone(), dictionaries, None, &version).map(Some);
    }
    let batch = message.header_as_dictionary_batch();
    let batch = batch.ok_or_else(|| broken("a message has neither rows nor a dictionary"))?;
    read_dictionary(body, batch, schema, dictionaries, &version)?;
    Ok(None)
}

/// The next message of `input`, of which its claims hold; `None` at the end.
fn message(input: &mut impl Read, most: usize) -> Result<Option<Parts>, ArrowError> {
    let most = most.min(MOST_MESSAGE);
    let Some(mut length) = number(input)? else { return Ok(None) };
    if length == CONTINUATION {
        length = number(input)?.ok_or_else(|| ArrowError::from(io::Error::from(io::ErrorKind::UnexpectedEof)))?;
    }
    if length == 0 {
        return Ok(None);
    }
    if length as usize > MOST_HEAD {
        return Err(broken(format!("the description of a message is longer than {MOST_HEAD} bytes")));
    }
    let head = exactly(input, length as usize)?;
    let message = root_as_message(&head).map_err(|e| broken(format!("a message has no description: {e}")))?;
    let length = usize::try_from(message.bodyLength()).ok().filter(|length| *length <= most);
    let length = length.ok_or_else(|| broken(format!("a message is longer than {most} bytes")))?;
    let body = Buffer::from_vec(exactly(input, length)?);
    let unpacked = unpacked_message(&message, &body, most)?;
    Ok(Some(Parts { head, body, unpacked }))
}

/// A number of four bytes; `None` where the input has ended.
fn number(input: &mut impl Read) -> io::Result<Option<u32>> {
    let mut bytes = vec![];
    input.take(4).read_to_end(&mut bytes)?;
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => Ok(Some(u32::from_le_bytes(bytes))),
        Err(bytes) if bytes.is_empty() => Ok(None),
        Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `length` bytes, for which there is room as they come.
fn exactly(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    input.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

    use super::*;

    fn rows(n: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..n).map(|n| format!("text {n}"))));
        let words: DictionaryArray<Int32Type> = (0..n).map(|n| if n % 2 == 0 { "even" } else { "odd" }).collect();
        RecordBatch::try_from_iter([("n", numbers), ("t", texts), ("w", Arc::new(words) as ArrayRef)]).unwrap()
    }

    fn written(batches: &[RecordBatch], codec: Option<CompressionType>) -> Vec<u8> {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let mut writer = StreamWriter::try_new_with_options(vec![], &batches[0].schema(), options).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    fn read(bytes: &[u8], most: usize) -> Result<Vec<RecordBatch>, String> {
        let stream = IpcStream::new(bytes, most).map_err(|e| e.to_string())?;
        stream.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    }

    fn file(batches: &[RecordBatch], codec: Option<CompressionType>) -> Vec<u8> {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let mut writer = FileWriter::try_new_with_options(vec![], &batches[0].schema(), options).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    fn read_file(bytes: &[u8]) -> Result<Vec<RecordBatch>, String> {
        let file = IpcFile::new(io::Cursor::new(bytes)).map_err(|e| e.to_string())?;
        file.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    }

    #[test]
    fn files_are_read_whole_or_not_at_all() {
        let batches = [rows(3), rows(70_000)];
        for codec in CODECS {
            assert_eq!(read_file(&file(&batches, codec)).unwrap(), batches, "{codec:?}");
            let bytes = file(&[rows(40)], codec);
            for at in 0..bytes.len() {
                assert!(read_file(&bytes[..at]).is_err(), "cut off at {at}");
            }
        }
    }

    const CODECS: [Option<CompressionType>; 3] = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)];

    #[test]
    fn what_is_written_is_read() {
        let batches = [rows(3), rows(0), rows(200_000)];
        for codec in CODECS {
            let bytes = written(&batches, codec);
            assert_eq!(read(&bytes, 1 << 30).unwrap(), batches, "{codec:?}");
            // Without its end, as some write it.
            assert_eq!(read(&bytes[..bytes.len() - 8], 1 << 30).unwrap(), batches);
            assert!(read(&bytes[..bytes.len() - 20], 1 << 30).is_err(), "cut off");
            let e = read(&bytes, 4 << 20).unwrap_err();
            assert!(e.contains("more than") || e.contains("longer than"), "{codec:?}: {e}");
        }
        assert!(read(&[], 1 << 20).unwrap_err().contains("no schema"));
    }

    #[test]
    fn what_a_message_claims_is_looked_at() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7; 20_000]));
        let batch = RecordBatch::try_from_iter([("n", numbers.clone()), ("m", numbers)]).unwrap();
        let forged = |codec, put: i64| {
            let (mut bytes, find) = (written(std::slice::from_ref(&batch), codec), 160_000_i64.to_le_bytes());
            let places: Vec<_> = (0..bytes.len() - 8).filter(|at| bytes[*at..*at + 8] == find).collect();
            assert!(!places.is_empty(), "its bytes are not told");
            places.iter().for_each(|at| bytes[*at..*at + 8].copy_from_slice(&put.to_le_bytes()));
            read(&bytes, 1 << 20).unwrap_err()
        };
        for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            assert!(forged(Some(codec), -2).contains("less than nothing"));
            // What is true, and more than is taken.
            let e = read(&written(std::slice::from_ref(&batch), Some(codec)), 200_000).unwrap_err();
            assert!(e.contains("more than 200000 bytes"), "{e}");
        }
        // LZ4 would be unpacked to its end, whatever it says.
        let many: ArrayRef = Arc::new(Int64Array::from(vec![7; 2_000_000]));
        let mut bytes = written(&[RecordBatch::try_from_iter([("n", many)]).unwrap()], CODECS[1]);
        let at = (0..bytes.len() - 8).find(|at| bytes[*at..*at + 8] == 16_000_000_i64.to_le_bytes()).unwrap();
        bytes[at..at + 8].copy_from_slice(&8_i64.to_le_bytes());
        let e = read(&bytes, 1 << 28).unwrap_err();
        assert!(e.contains("more than it says"), "{e}");
        let e = forged(None, 160_008);
        assert!(e.contains("longer than") || e.contains("outside"), "{e}");
        let e = read(&written(&[batch], CODECS[1]), 150_000).unwrap_err();
        assert!(e.contains("more than 18750 rows"), "{e}");
    }
}
