//! A connector of your own: bells that ring for ever, in a tower that forgets a ring when it is told that it is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::Result;
use millstream_engine::changes::Changes;
use millstream_engine::connector::registry::{Connector, Guarantee, Readable, SourceRequest};
use millstream_engine::connector::{Intake, Offsets, Opening, Read, Readers, Source, Split, Unit, UnitReader};
use millstream_engine::options::{OptionSpec, Options, Takes};
use parking_lot::Mutex;

const BELLS: OptionSpec = OptionSpec::new("bells", Takes::Whole, "3", "how many bells there are").or("20");

/// The rings that the tower has forgotten, by bell.
pub(super) type Tower = Arc<Mutex<BTreeMap<String, u64>>>;
pub(super) struct Bells(pub(super) Tower);

#[rustfmt::skip]
impl Connector for Bells {
    fn name(&self) -> &str { "bells" }
    fn about(&self) -> &str { "bells that ring for ever" }
    fn source(&self) -> Option<&dyn Readable> { Some(self) }
}

#[rustfmt::skip]
impl Readable for Bells {
    fn options(&self) -> Vec<OptionSpec> { vec![BELLS] }
    fn guarantee(&self) -> Guarantee { Guarantee::ExactlyOnce }
    fn columns(&self, _: Options) -> Result<Option<SchemaRef>> {
        let (bell, ring) = (Field::new("bell", DataType::Utf8View, true), Field::new("ring", DataType::Int64, true));
        Ok(Some(Arc::new(Schema::new(vec![bell, ring]))))
    }
    fn scan(&self, mut request: SourceRequest) -> Result<Arc<dyn Source>> {
        let bells = request.options.value(&BELLS, "a whole number")?.unwrap_or_default();
        request.options.finish()?;
        let (tower, request) = (self.0.clone(), (request.schema, request.projection));
        Ok(Arc::new(Ringing { tower, bells, request }))
    }
}

#[rustfmt::skip]
struct Ringing { tower: Tower, bells: u64, request: (SchemaRef, Vec<usize>) }

/// What the query is about: nothing rings yet.
#[async_trait]
#[rustfmt::skip]
impl Source for Ringing {
    fn describe(&self) -> String { format!("{} bells", self.bells) }
    fn bounded(&self) -> bool { false }
    /// Bells do not end, so a task listens to several.
    fn side_by_side(&self) -> bool { true }
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> { Some(self) }
    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        let bells = (0..self.bells).map(|i| format!("bell {i}").into()).collect::<Vec<Arc<str>>>();
        let unit = |bell: &Arc<str>| Unit { start: opening.consumed.prefix(bell), split: bell.clone(), end: u64::MAX };
        Ok(Arc::new(Heard { tower: self.tower.clone(), left: Mutex::new(bells.iter().map(unit).collect()), bells }))
    }
}

#[rustfmt::skip]
struct Heard { tower: Tower, bells: Vec<Arc<str>>, left: Mutex<Vec<Unit>> }

/// What the coordinator holds: which bells there are, who is still to be listened to, and what is kept.
#[async_trait]
#[rustfmt::skip]
impl Intake for Heard {
    fn splits(&self) -> Vec<Split> {
        let split = |bell: &Arc<str>| Split { name: bell.clone(), end: None, min_time: None, holds: true };
        self.bells.iter().map(split).collect()
    }
    async fn next_unit(&self) -> Result<Option<Unit>> {
        let unit = self.left.lock().pop();
        if unit.is_some() { Ok(unit) } else { std::future::pending().await }
    }
    async fn committed(&self, offsets: &Offsets) -> Result<()> {
        self.tower.lock().extend(offsets.splits.keys().map(|bell| (bell.clone(), offsets.prefix(bell))));
        Ok(())
    }
}

/// What tasks hold, wherever they run.
#[async_trait]
#[rustfmt::skip]
impl Readers for Ringing {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        Ok(Box::new(Listener { request: self.request.clone(), bell: unit.split.clone(), rings: unit.start }))
    }
}

#[rustfmt::skip]
struct Listener { request: (SchemaRef, Vec<usize>), bell: Arc<str>, rings: u64 }

#[async_trait]
impl UnitReader for Listener {
    async fn next(&mut self) -> Result<Option<Read>> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let bell = Arc::new(StringViewArray::from(vec![&*self.bell]));
        let all: [ArrayRef; 2] = [bell, Arc::new(Int64Array::from(vec![self.rings as i64]))];
        self.rings += 1;
        let rows = RecordBatch::try_new(self.request.0.clone(), all.to_vec())?.project(&self.request.1)?;
        Ok(Some(Read::rows(Changes::insertions(rows), self.rings)))
    }
}
