//! Which rows are late: a model of its own, of a few lines of arithmetic, that shares nothing with the engine.
//!
//! The rows of epoch `n + 1` are read under the watermark of epoch `n`. A row is late when the end of the last
//! window that holds it is not after that watermark. One of which some windows have closed counts in the others only:
//! the rows that are kept have the watermark in a column `seen`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use millstream_engine::time::EventTime;

use crate::Result;
use crate::input::Input;

/// Windows of `size` that start every `every` microseconds from `offset` on. Those of `CUMULATE` end as a `TUMBLE` of
/// their largest size does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The distance between starts.
    pub every: i64,
    /// The length.
    pub size: i64,
    /// The shift.
    pub offset: i64,
}

impl Closing {
    /// The end of the last window that holds `t`.
    fn last_end(self, t: i64) -> i64 {
        let last_start = (t - self.offset).div_euclid(self.every) * self.every + self.offset;
        last_start + self.size
    }

    fn is_late(self, t: i64, watermark: EventTime) -> bool {
        watermark != EventTime::MIN && self.last_end(t) <= watermark.0
    }
}

/// What is kept of a stream that is read in groups.
#[derive(Debug)]
pub struct Kept {
    /// The rows that are not late, each with the watermark under which it was read.
    pub rows: RecordBatch,
    /// How many are.
    pub late: u64,
}

/// Goes through the epochs up to `until`. `accepted` holds the ends of the splits by epoch, `watermarks` that of each
/// epoch's mark.
pub fn kept(
    input: &Input,
    accepted: &BTreeMap<u64, Vec<u64>>,
    watermarks: &BTreeMap<u64, EventTime>,
    until: u64,
    closings: &[Closing],
) -> Result<Kept> {
    let time = input.schema.index_of("ts")?;
    let mut from = vec![0; input.splits.len()];
    let (mut rows, mut late) = (vec![], 0);
    let seen = Field::new("seen", DataType::Timestamp(TimeUnit::Microsecond, None), false);
    let fields = input.schema.fields().iter().cloned().chain([Arc::new(seen)]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    for (epoch, ends) in accepted.range(..=until) {
        let watermark = watermarks.get(&(epoch - 1)).copied().unwrap_or(EventTime::MIN);
        for ((split, from), end) in input.splits.iter().zip(&mut from).zip(ends) {
            let part = split.slice(*from as usize, (*end - *from) as usize);
            *from = *end;
            let times = part.rows().column(time).as_primitive::<TimestampMicrosecondType>().clone();
            let is_late = |t: i64| closings.iter().any(|c| c.is_late(t, watermark));
            let keep: BooleanArray = times.iter().map(|t| Some(!t.is_some_and(is_late))).collect();
            late += (keep.len() - keep.true_count()) as u64;
            let kept = filter_record_batch(part.rows(), &keep)?;
            // No time of the rows is before it.
            let seen = watermark.0.max(-EventTime::MAX.0 / 4);
            let seen: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![seen; kept.num_rows()]));
            let columns = kept.columns().iter().cloned().chain([seen]).collect();
            rows.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
    }
    Ok(Kept { rows: concat_batches(&schema, &rows)?, late })
}

/// The watermark that follows when everything before the ends of each epoch has been read: per split the largest time
/// less `behind`, of them the least over the splits that have not ended, and never less than before.
pub fn bounds(input: &Input, accepted: &BTreeMap<u64, Vec<u64>>, behind: i64) -> Result<BTreeMap<u64, EventTime>> {
    let time = input.schema.index_of("ts")?;
    let mut so_far = EventTime::MIN;
    let mut all = BTreeMap::new();
    for (epoch, ends) in accepted {
        let mut least: Option<i64> = None;
        for (split, end) in input.splits.iter().zip(ends).filter(|(s, end)| (s.num_rows() as u64) > **end) {
            let part = split.slice(0, *end as usize);
            let times = part.rows().column(time).as_primitive::<TimestampMicrosecondType>().clone();
            let bound = times.iter().flatten().max().map_or(i64::MIN, |t| t - behind);
            least = Some(least.map_or(bound, |l| l.min(bound)));
        }
        so_far = so_far.max(EventTime(least.unwrap_or(i64::MIN)));
        all.insert(*epoch, so_far);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_ends_at_the_watermark_is_closed() {
        let tumble = Closing { every: 10, size: 10, offset: 0 };
        assert!(tumble.is_late(9, EventTime(10)));
        assert!(!tumble.is_late(9, EventTime(9)));
        assert!(!tumble.is_late(10, EventTime(19)));
        assert!(tumble.is_late(10, EventTime(20)));
        let hop = Closing { every: 5, size: 10, offset: 1 };
        assert!(!hop.is_late(5, EventTime(10)));
        assert!(hop.is_late(5, EventTime(11)));
        assert!(!hop.is_late(6, EventTime(15)));
    }
}
