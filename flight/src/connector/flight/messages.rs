//! Rows as the messages that carry them, in a parcel on the disk: what is sent is read from there as it is.
//!
//! ```text
//! [bytes of the header and of the body: 4 and 8 bytes, the lowest first] [header] [body]   and so on
//! ```

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use millstream_engine::connector::outbox::Packing;
use millstream_engine::error::{Error, Result};

use crate::compression::Compression;
use crate::connector::dispatch::Packer;
use crate::encode::Encoder;
use crate::wire::wire_schema;

/// Bytes of the numbers before a message.
const HEAD: usize = 12;
/// About how many bytes of rows a message carries: many enough for the cost of one, few enough for a window.
const MESSAGE_BYTES: usize = 1 << 20;
/// What is read at a time.
const BUFFER: usize = 1 << 20;

/// The message before those of rows of `schema`.
pub(super) fn schema_message(schema: &SchemaRef) -> FlightData {
    Encoder::new(wire_schema(schema)).schema_message()
}

/// Makes messages of rows.
pub(super) struct Messages(Encoder);

impl Messages {
    /// Of rows of `schema`.
    pub(super) fn new(schema: &SchemaRef, compression: Compression) -> Result<Self> {
        Ok(Messages(Encoder::compressed(wire_schema(schema), compression)?.in_pieces_of(MESSAGE_BYTES)))
    }
}

impl Packer for Messages {
    fn pack(&mut self, rows: &RecordBatch, packing: &mut Packing) -> Result<()> {
        let messages = self.0.encode(rows)?;
        packing.add(rows.num_rows(), |out| {
            for FlightData { data_header, data_body, .. } in messages {
                out.reserve(HEAD + data_header.len() + data_body.len());
                out.extend_from_slice(&(data_header.len() as u32).to_le_bytes());
                out.extend_from_slice(&(data_body.len() as u64).to_le_bytes());
                out.extend_from_slice(&data_header);
                out.extend_from_slice(&data_body);
            }
            Ok(())
        })
    }
}

/// Reads the messages of a parcel.
pub(super) struct Packed(BufReader<File>);

impl Packed {
    /// Of the parcel at `path`. Blocks on the disk.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::from(e).context(format!("file \"{}\"", path.display())))?;
        Ok(Packed(BufReader::with_capacity(BUFFER, file)))
    }

    /// The next one. Blocks on the disk.
    pub(super) fn next(&mut self) -> Result<Option<FlightData>> {
        let mut head = [0; HEAD];
        if self.0.by_ref().take(1).read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut head[1..])?;
        let (header, body) = head.split_at(4);
        let header = u32::from_le_bytes(header.try_into().unwrap_or_default());
        let body = u64::from_le_bytes(body.try_into().unwrap_or_default());
        let (header, body) = (self.bytes(header.into())?, self.bytes(body)?);
        Ok(Some(FlightData { data_header: header.into(), data_body: body.into(), ..FlightData::default() }))
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        match self.0.by_ref().take(length).read_to_end(&mut bytes)? as u64 == length {
            true => Ok(bytes),
            false => Err(Error::data("a parcel of rows on their way is damaged")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringViewArray, UInt32Array};
    use arrow::datatypes::Int64Type;
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::{TryStreamExt, stream};
    use millstream_engine::connector::outbox::Outbox;

    use crate::wire::cast_batch;

    fn rows(n: usize) -> RecordBatch {
        let text = StringViewArray::from_iter((0..n).map(|i| (i % 7 != 0).then(|| format!("row {} of many", i % 100))));
        let list = (0..n).map(|i| Some(vec![Some(i as i64), None]));
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from_iter_values(0..n as i64))),
            ("t", Arc::new(text)),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(list))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .expect("columns of one length")
    }

    #[tokio::test]
    async fn what_was_packed_is_what_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sizes = vec![];
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let (outbox, _) = Outbox::open(folder.path().to_owned(), 1, vec![]).await.expect("opens");
            let mut packing = Packing::new(outbox.clone(), 0);
            let schema = rows(0).schema();
            let mut messages = Messages::new(&schema, compression).expect("encodes");
            let some = arrow::compute::take_record_batch(&rows(10), &UInt32Array::from(vec![9, 3])).expect("two rows");
            for batch in [rows(3), rows(100_000), rows(0), some.clone()] {
                messages.pack(&batch, &mut packing).expect("packs");
                packing.ease().await.expect("a disk");
            }
            let parcel = packing.seal(7).await.expect("a disk").expect("something");
            assert_eq!(parcel.rows, 100_005);
            sizes.push(parcel.bytes);
            let mut packed = Packed::open(&outbox.path(&parcel)).expect("is there");
            let mut all = vec![schema_message(&schema)];
            while let Some(message) = packed.next().expect("reads") {
                assert!(message.data_body.len() < 2 * MESSAGE_BYTES);
                all.push(message);
            }
            assert!(all.len() > 5, "{} messages", all.len());
            let read = FlightRecordBatchStream::new_from_flight_data(stream::iter(all.into_iter().map(Ok)));
            let read: Vec<RecordBatch> = read.try_collect().await.expect("is Flight");
            let read = arrow::compute::concat_batches(&read[0].schema(), &read).expect("one schema");
            let sent = [rows(3), rows(100_000), some].map(|b| cast_batch(&b, &wire_schema(&schema)).expect("casts"));
            assert_eq!(read, arrow::compute::concat_batches(&read.schema(), &sent).expect("one schema"));
            let path = outbox.path(&parcel);
            let bytes = std::fs::read(&path).expect("is there");
            std::fs::write(&path, &bytes[..bytes.len() - 5]).expect("a disk");
            let mut cut = Packed::open(&path).expect("is there");
            let ended = std::iter::from_fn(|| cut.next().transpose()).find_map(Result::err).expect("is damaged");
            assert_eq!(ended.message(), "a parcel of rows on their way is damaged");
        }
        assert!(sizes[1] < sizes[0] / 2 && sizes[2] < sizes[0] / 3, "{sizes:?}");
    }
}
