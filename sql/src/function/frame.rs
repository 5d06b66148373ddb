//! Sums from which rows are taken back without a trace: of floats over a window's frame, and of intervals.
//!
//! Sums of floats are compensated (Neumaier, as in continuous queries), and NaN and the infinities are counted
//! apart: what has left a frame is then not seen in later ones.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Accumulator;

/// `sum` and `avg` of `DOUBLE` over frames.
#[derive(Debug, Default)]
pub(super) struct FloatFrame {
    average: bool,
    sum: f64,
    error: f64,
    count: i64,
    nans: i64,
    ups: i64,
    downs: i64,
}

impl FloatFrame {
    pub(super) fn new(average: bool) -> Self {
        FloatFrame { average, ..FloatFrame::default() }
    }

    fn add(&mut self, values: &ArrayRef, weight: i64) {
        for v in values.as_primitive::<Float64Type>().iter().flatten() {
            self.count += weight;
            if v.is_nan() {
                self.nans += weight;
            } else if v == f64::INFINITY {
                self.ups += weight;
            } else if v == f64::NEG_INFINITY {
                self.downs += weight;
            } else {
                let x = v * weight as f64;
                let total = self.sum + x;
                self.error += if self.sum.abs() >= x.abs() { (self.sum - total) + x } else { (x - total) + self.sum };
                self.sum = total;
            }
        }
        if self.count == self.nans + self.ups + self.downs {
            // No finite number is left: neither is what rounding left of others.
            (self.sum, self.error) = (0.0, 0.0);
        }
    }

    fn value(&self) -> Option<f64> {
        let sum = match (self.nans > 0, self.ups > 0, self.downs > 0) {
            _ if self.count == 0 => return None,
            (true, _, _) | (_, true, true) => f64::NAN,
            (_, true, false) => f64::INFINITY,
            (_, false, true) => f64::NEG_INFINITY,
            _ if !self.sum.is_finite() => self.sum,
            _ => self.sum + self.error,
        };
        Some(if self.average { sum / self.count as f64 } else { sum })
    }
}

impl Accumulator for FloatFrame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.value()))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(DataFusionError::Internal("a sum over a frame has no parts".to_owned()))
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(DataFusionError::Internal("a sum over a frame has no parts".to_owned()))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// `sum` of intervals, part by part: months, days and nanoseconds.
#[derive(Debug, Default)]
pub(super) struct IntervalSum {
    name: String,
    distinct: bool,
    /// How often each interval occurs, where only distinct ones count.
    seen: HashMap<IntervalMonthDayNano, i64>,
    months: i64,
    days: i64,
    nanos: i128,
    count: i64,
}

/// Bytes of an interval in states of distinct ones.
const WIDTH: usize = 16;

impl IntervalSum {
    pub(super) fn new(name: &str, distinct: bool) -> Self {
        IntervalSum { name: name.to_owned(), distinct, ..IntervalSum::default() }
    }

    pub(super) fn state_type() -> DataType {
        DataType::Binary
    }

    fn add(&mut self, v: IntervalMonthDayNano, weight: i64) {
        if self.distinct {
            let n = self.seen.entry(v).or_default();
            let before = *n > 0;
            *n += weight;
            let after = *n > 0;
            if !after {
                self.seen.remove(&v);
            }
            if before != after {
                self.add_parts(v, weight.signum());
            }
            return;
        }
        self.add_parts(v, weight);
    }

    fn add_parts(&mut self, v: IntervalMonthDayNano, weight: i64) {
        self.count += weight;
        self.months += i64::from(v.months) * weight;
        self.days += i64::from(v.days) * weight;
        self.nanos += i128::from(v.nanoseconds) * i128::from(weight);
    }

    fn add_all(&mut self, values: &ArrayRef, weight: i64) {
        for v in values.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.add(v, weight);
        }
    }
}

impl Accumulator for IntervalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return Ok(ScalarValue::IntervalMonthDayNano(None));
        }
        let parts = (i32::try_from(self.months), i32::try_from(self.days), i64::try_from(self.nanos));
        let (Ok(months), Ok(days), Ok(nanos)) = parts else {
            return Err(DataFusionError::Execution(format!("{}: the sum does not fit INTERVAL", self.name)));
        };
        Ok(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos))))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = vec![];
        if self.distinct {
            for v in self.seen.keys() {
                bytes.extend(v.months.to_le_bytes());
                bytes.extend(v.days.to_le_bytes());
                bytes.extend(v.nanoseconds.to_le_bytes());
            }
        } else {
            bytes.extend(self.months.to_le_bytes());
            bytes.extend(self.days.to_le_bytes());
            bytes.extend(self.nanos.to_le_bytes());
            bytes.extend(self.count.to_le_bytes());
        }
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            if self.distinct {
                for v in bytes.chunks_exact(WIDTH) {
                    let (months, rest) = read::<4>(v)?;
                    let (days, rest) = read::<4>(rest)?;
                    let (nanos, _) = read::<8>(rest)?;
                    let (months, days) = (i32::from_le_bytes(months), i32::from_le_bytes(days));
                    self.add(IntervalMonthDayNano::new(months, days, i64::from_le_bytes(nanos)), 1);
                }
                continue;
            }
            let (months, rest) = read::<8>(bytes)?;
            let (days, rest) = read::<8>(rest)?;
            let (nanos, rest) = read::<16>(rest)?;
            let (count, _) = read::<8>(rest)?;
            self.months += i64::from_le_bytes(months);
            self.days += i64::from_le_bytes(days);
            self.nanos += i128::from_le_bytes(nanos);
            self.count += i64::from_le_bytes(count);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.capacity() * (WIDTH + 9)
    }
}

/// The first bytes, and the rest.
fn read<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8])> {
    let (first, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or_else(|| DataFusionError::Internal("the state of a sum of intervals is cut off".to_owned()))?;
    Ok((*first, rest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, IntervalMonthDayNanoArray};

    use super::*;

    fn floats(v: &[f64]) -> Vec<ArrayRef> {
        vec![Arc::new(Float64Array::from(v.to_vec()))]
    }

    #[test]
    fn what_left_a_frame_leaves_no_trace() {
        let mut sum = FloatFrame::new(false);
        sum.update_batch(&floats(&[f64::NAN, 1.0, f64::INFINITY, 1e20])).expect("rows");
        assert!(sum.value().is_some_and(f64::is_nan));
        sum.retract_batch(&floats(&[f64::NAN])).expect("rows");
        assert_eq!(sum.value(), Some(f64::INFINITY));
        sum.retract_batch(&floats(&[f64::INFINITY, 1e20])).expect("rows");
        assert_eq!(sum.value(), Some(1.0));
        sum.retract_batch(&floats(&[1.0])).expect("rows");
        assert_eq!(sum.value(), None);
    }

    #[test]
    fn sums_of_intervals_do_not_wrap() {
        let days = IntervalMonthDayNano::new(1, 0, 86_400_000_000_000);
        let values: Vec<ArrayRef> = vec![Arc::new(IntervalMonthDayNanoArray::from(vec![days; 200_000]))];
        let mut part = IntervalSum::new("sum(v)", false);
        part.update_batch(&values).expect("rows");
        let state = part.state().expect("a state")[0].to_array().expect("an array");
        let mut sum = IntervalSum::new("sum(v)", false);
        sum.merge_batch(&[state]).expect("a state");
        let error = sum.evaluate().expect_err("more than 292 years").to_string();
        assert!(error.contains("sum(v): the sum does not fit INTERVAL"), "{error}");
        let less: Vec<ArrayRef> = vec![Arc::new(IntervalMonthDayNanoArray::from(vec![days; 199_999]))];
        sum.retract_batch(&less).expect("rows");
        assert_eq!(sum.evaluate().expect("fits"), ScalarValue::IntervalMonthDayNano(Some(days)));
    }
}
