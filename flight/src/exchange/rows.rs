//! The rows of one edge as messages.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, Int64Array, RecordBatch, RecordBatchOptions, StructArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{ByteViewType, DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::FlightData;
use millstream_engine::Result;
use millstream_engine::changes::{Changes, array_bytes};
use prost::Message;

use super::call::LARGEST;
use super::words::Head;
use crate::unpack::checked;

/// The column that holds the weights.
const WEIGHTS: &str = "weight";

/// Puts rows into messages.
pub(super) struct RowsOut {
    /// The schema of the rows that were sent last, whether they had weights, and the schema that was told.
    schema: Option<(SchemaRef, bool, SchemaRef)>,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl RowsOut {
    pub(super) fn new(compression: crate::Compression) -> Result<Self, ArrowError> {
        Ok(RowsOut {
            schema: None,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            options: compression.write_options()?,
            context: IpcWriteContext::default(),
        })
    }

    /// The messages for `changes`, which go along `edge` and take `cost` of its room.
    pub(super) fn messages(&mut self, edge: u32, cost: u32, changes: &Changes) -> Result<Vec<FlightData>, ArrowError> {
        let weighted = changes.weights().is_some();
        let mut messages = vec![];
        let beside = Head { edge, ..Head::default() }.encode_to_vec();
        let known = self.schema.as_ref().filter(|(rows, w, _)| *w == weighted && rows == changes.rows().schema_ref());
        let schema = match known {
            Some((.., told)) => told.clone(),
            None => {
                let told = told_schema(changes.rows().schema_ref(), weighted);
                self.dictionaries = DictionaryTracker::new(false);
                let (tracker, options) = (&mut self.dictionaries, &self.options);
                let message = self.generator.schema_to_bytes_with_dictionary_tracker(&told, tracker, options);
                messages.push(FlightData::from(message).with_app_metadata(beside.clone()));
                self.schema = Some((changes.rows().schema(), weighted, told.clone()));
                told
            }
        };
        let mut columns: Vec<ArrayRef> = changes.rows().columns().iter().map(compact).collect();
        columns.extend(changes.weights().map(|weights| Arc::new(Int64Array::new(weights.clone(), None)) as ArrayRef));
        let rows = RecordBatchOptions::new().with_row_count(Some(changes.num_rows()));
        let batch = RecordBatch::try_new_with_options(schema, columns, &rows)?;
        let (dictionaries, batch) =
            self.generator.encode(&batch, &mut self.dictionaries, &self.options, &mut self.context)?;
        let dictionaries = dictionaries.into_iter().map(FlightData::from);
        messages.extend(dictionaries.map(|message| message.with_app_metadata(beside.clone())));
        let head = Head { edge, cost, weighted, mark: None };
        messages.push(FlightData::from(batch).with_app_metadata(head.encode_to_vec()));
        Ok(messages)
    }
}

/// The schema as it is told.
fn told_schema(schema: &SchemaRef, weighted: bool) -> SchemaRef {
    if !weighted {
        return schema.clone();
    }
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHTS, DataType::Int64, false)));
    Arc::new(Schema::new(fields).with_metadata(schema.metadata().clone()))
}

/// The same values without what lies around them: views share the buffers of the batch that they were taken of, and all of
/// those would be sent with each part of it.
fn compact(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => compact_views(array.as_string_view()).unwrap_or_else(|| array.clone()),
        DataType::BinaryView => compact_views(array.as_binary_view()).unwrap_or_else(|| array.clone()),
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            let columns = parts.columns().iter().map(compact).collect();
            let compacted =
                StructArray::try_new_with_length(fields.clone(), columns, parts.nulls().cloned(), parts.len());
            compacted.map_or_else(|_| array.clone(), |array| Arc::new(array))
        }
        _ => array.clone(),
    }
}

/// As [`compact`], where it is worth it.
fn compact_views<T: ByteViewType>(views: &GenericByteViewArray<T>) -> Option<ArrayRef> {
    let has: usize = views.data_buffers().iter().map(Buffer::len).sum();
    let used = array_bytes(&(Arc::new(views.clone()) as ArrayRef)).saturating_sub(views.len() * 16);
    (has > used + used / 4).then(|| Arc::new(views.gc()) as ArrayRef)
}

/// Takes rows out of messages.
#[derive(Default)]
pub(super) struct RowsIn {
    /// The schema that was told, and that of the rows without weights.
    schema: Option<(SchemaRef, SchemaRef)>,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl RowsIn {
    /// The rows of `message`, if it has any: it may also tell a schema or a dictionary.
    pub(super) fn read(&mut self, message: FlightData, weighted: bool) -> Result<Option<Changes>> {
        if message.data_header.is_empty() {
            return Ok(None);
        }
        let message = checked(message, LARGEST).map_err(|e| ArrowError::IpcError(e.to_string()))?;
        let broken = |why: &str| ArrowError::IpcError(why.to_owned());
        let head = root_as_message(&message.data_header).map_err(|e| ArrowError::IpcError(e.to_string()))?;
        if let Some(schema) = head.header_as_schema() {
            self.tell(fb_to_schema(schema));
            return Ok(None);
        }
        let (told, _) = self.schema.clone().ok_or_else(|| broken("rows without a schema"))?;
        let (body, version) = (Buffer::from(message.data_body.clone()), head.version());
        if let Some(dictionary) = head.header_as_dictionary_batch() {
            read_dictionary(&body, dictionary, &told, &mut self.dictionaries, &version)?;
            return Ok(None);
        }
        let batch = head.header_as_record_batch().ok_or_else(|| broken("a message without rows"))?;
        let rows = read_record_batch(&body, batch, told, &self.dictionaries, None, &version)?;
        self.changes(rows, weighted).map(Some)
    }

    fn tell(&mut self, told: Schema) {
        self.dictionaries.clear();
        let fields = told.fields();
        // Which of the two is meant says each message with rows.
        let plain = fields.iter().take(fields.len().saturating_sub(1)).cloned().collect::<Vec<_>>();
        let plain = Schema::new(plain).with_metadata(told.metadata().clone());
        self.schema = Some((Arc::new(told), Arc::new(plain)));
    }

    fn changes(&self, rows: RecordBatch, weighted: bool) -> Result<Changes> {
        let Some((_, schema)) = self.schema.as_ref().filter(|_| weighted) else { return Ok(Changes::insertions(rows)) };
        let Some((weights, columns)) = rows.columns().split_last() else { return Ok(Changes::insertions(rows)) };
        let weights = weights.as_primitive_opt::<Int64Type>();
        let weights = weights.ok_or_else(|| ArrowError::IpcError("weights that are no numbers".to_owned()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns.to_vec(), &options)?;
        Changes::of_changelog(rows, weights.values().clone())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, StringViewArray, UInt32Array};
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::Compression;

    fn text(rows: usize) -> RecordBatch {
        let long = (0..rows).map(|i| (i % 7 > 0).then(|| format!("a text that is longer than twelve: {i}")));
        let views: ArrayRef = Arc::new(long.collect::<StringViewArray>());
        let words: DictionaryArray<Int32Type> = (0..rows).map(|i| if i % 2 == 0 { "even" } else { "odd" }).collect();
        let both = StructArray::from(vec![(Arc::new(Field::new("v", DataType::Utf8View, true)), views.clone())]);
        RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(Int64Array::from_iter_values(0..rows as i64)) as ArrayRef, false),
            ("t", views, true),
            ("w", Arc::new(words) as ArrayRef, true),
            ("s", Arc::new(both) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn there_and_back(out: &mut RowsOut, rows_in: &mut RowsIn, changes: &Changes) -> (Changes, usize) {
        let (mut bytes, mut read) = (0, None);
        for message in out.messages(3, 9, changes).unwrap() {
            bytes += message.data_body.len();
            let head = Head::decode(message.app_metadata.clone()).unwrap();
            assert_eq!(head.edge, 3);
            read = rows_in.read(message, head.weighted).unwrap();
        }
        (read.expect("the last one has rows"), bytes)
    }

    #[test]
    fn rows_are_the_same_there() {
        let rows = text(5000);
        let weights: Vec<i64> = (0..5000).map(|i| i % 3 - 1).collect();
        let all = Changes::insertions(rows.clone());
        let changelog = Changes::weighted(rows.clone(), weights.into()).unwrap();
        let arrivals = Changes::of_changelog(rows.slice(7, 90), vec![1; 90].into()).unwrap();
        let none = rows.project(&[]).unwrap();
        for compression in [Compression::None, Compression::Lz4] {
            let (mut out, mut rows_in) = (RowsOut::new(compression).unwrap(), RowsIn::default());
            let narrow = Changes::weighted(none.clone(), vec![-1; 5000].into()).unwrap();
            for changes in [&all, &changelog, &arrivals, &all.slice(4000, 3), &narrow, &all] {
                let (read, _) = there_and_back(&mut out, &mut rows_in, changes);
                assert_eq!(read.rows(), changes.rows());
                assert_eq!(read.weights().map(|w| w.to_vec()), changes.weights().map(|w| w.to_vec()));
            }
        }
    }

    #[test]
    fn a_part_takes_its_part() {
        let all = Changes::insertions(text(8000));
        let (mut out, mut rows_in) = (RowsOut::new(Compression::None).unwrap(), RowsIn::default());
        let (_, whole) = there_and_back(&mut out, &mut rows_in, &all);
        let tenth = all.take(&UInt32Array::from_iter_values((0..800).map(|i| i * 10))).unwrap();
        let (read, part) = there_and_back(&mut out, &mut rows_in, &tenth);
        assert_eq!(read.rows(), tenth.rows());
        assert!(part < whole / 8, "{part} of {whole}");
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let mut messages =
            RowsOut::new(Compression::None).unwrap().messages(0, 0, &Changes::insertions(text(9))).unwrap();
        assert!(RowsIn::default().read(messages.pop().unwrap(), false).is_err(), "rows without a schema");
        let broken = FlightData::new().with_data_header(vec![1, 2, 3]);
        assert!(RowsIn::default().read(broken, false).is_err());
    }
}
