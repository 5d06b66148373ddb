//! When rows that an operator keeps are not looked for any more.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};

use crate::time::EventTime;

/// When a row meets nothing any more: once the watermark has passed its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The column with its time, a timestamp.
    pub column: usize,
    /// So many microseconds later.
    pub after: i64,
}

impl Expiry {
    /// What is before this in the column, in its unit, has expired at `watermark`.
    pub(super) fn bound(&self, schema: &SchemaRef, watermark: EventTime) -> Option<i64> {
        if watermark == EventTime::MIN || watermark == EventTime::MAX {
            return None;
        }
        let micros = watermark.0.saturating_sub(self.after);
        match schema.field(self.column).data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => Some(micros.div_euclid(1_000_000)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Some(micros.div_euclid(1000)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(micros),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(micros.saturating_mul(1000)),
            _ => None,
        }
    }
}
