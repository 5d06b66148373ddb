//! `count`, `min`, `max`, and `sum` and `avg` of floats, over primitive columns, columnar and readable by
//! slot; `sum` of integers and decimals is in `sum.rs`.
//!
//! `count`, `sum` and `avg` are linear: they take weights, so rows can be taken back. Sums of floats over
//! changes are compensated (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher
//! Summen", 1974), and NaN and the infinities are counted apart, so that a retracted one leaves no trace.
//! `min` and `max` here are for input that only grows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, Float64Array, Int64Array, PrimitiveArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use crate::error::Result;
use crate::expr::Failures;
use crate::float::canonical;
use crate::state::accumulate::{Accumulate, Touch};

/// `count(*)`, `count(x)`: rows in which no argument is null.
#[derive(Default)]
pub(crate) struct Count {
    counts: Vec<i64>,
}

impl Accumulate for Count {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
    }

    fn reserve(&mut self, slots: usize) {
        self.counts.reserve(slots);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        let nulls = args.iter().fold(None, |all, a| NullBuffer::union(all.as_ref(), a.logical_nulls().as_ref()));
        let counts = &mut self.counts;
        match (nulls.filter(|n| n.null_count() > 0), touch.runs()) {
            (None, Some(runs)) => runs.iter().for_each(|run| counts[run.slot as usize] += run.len() as i64),
            (None, None) => touch.each(|_, slot, w| counts[slot] += w),
            (Some(nulls), _) => touch.each(|row, slot, w| counts[slot] += w * i64::from(nulls.is_valid(row))),
        }
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        for (slot, n) in slots.iter().zip(state[0].as_primitive::<Int64Type>().values()) {
            self.counts[*slot as usize] += n;
        }
        Ok(())
    }

    fn values(&mut self, slots: &[u32], _failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        Ok(vec![ints(&self.counts, slots)])
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![ints(&self.counts, slots)])
    }

    fn clear(&mut self, slots: &[u32]) {
        for s in slots {
            self.counts[*s as usize] = 0;
        }
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 8
    }
}

pub(super) fn ints(values: &[i64], slots: &[u32]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(slots.iter().map(|s| values[*s as usize])))
}

/// Valid where a count is not 0.
pub(super) fn some(counts: &[i64], slots: &[u32]) -> Option<NullBuffer> {
    let valid = BooleanBuffer::collect_bool(slots.len(), |i| counts[slots[i] as usize] != 0);
    Some(NullBuffer::new(valid)).filter(|n| n.null_count() > 0)
}

/// `sum` and `avg` over `DOUBLE PRECISION` (and `REAL`, widened).
#[derive(Default)]
pub(crate) struct FloatSum {
    average: bool,
    sums: Vec<f64>,
    errors: Vec<f64>,
    counts: Vec<i64>,
    /// NaN, +inf, -inf seen by slot; made at the first of them.
    special: Vec<[i64; 3]>,
}

impl FloatSum {
    pub(crate) fn new(average: bool) -> Self {
        FloatSum { average, ..Default::default() }
    }

    #[inline]
    fn add(&mut self, slot: usize, v: f64, w: i64) {
        self.counts[slot] += w;
        if v.is_finite() {
            let (x, sum) = (v * w as f64, self.sums[slot]);
            let total = sum + x;
            self.errors[slot] += if sum.abs() >= x.abs() { (sum - total) + x } else { (x - total) + sum };
            self.sums[slot] = total;
        } else {
            self.special.resize(self.sums.len(), [0; 3]);
            let which = if v.is_nan() {
                0
            } else if v > 0.0 {
                1
            } else {
                2
            };
            self.special[slot][which] += w;
        }
    }

    fn read(&self, slot: usize) -> f64 {
        let [nan, up, down] = self.special.get(slot).copied().unwrap_or_default();
        let sum = match (nan != 0, up != 0, down != 0) {
            (true, _, _) | (_, true, true) => f64::NAN,
            (_, true, false) => f64::INFINITY,
            (_, false, true) => f64::NEG_INFINITY,
            // Beyond the largest number the error has no meaning.
            _ if !self.sums[slot].is_finite() => self.sums[slot],
            _ => self.sums[slot] + self.errors[slot],
        };
        if self.average { sum / self.counts[slot] as f64 } else { sum }
    }
}

impl Accumulate for FloatSum {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, 0.0);
        self.errors.resize(slots, 0.0);
        self.counts.resize(slots, 0);
        if !self.special.is_empty() {
            self.special.resize(slots, [0; 3]);
        }
    }

    fn reserve(&mut self, slots: usize) {
        self.sums.reserve(slots);
        self.errors.reserve(slots);
        self.counts.reserve(slots);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        let wide = cast(&args[0], &DataType::Float64)?;
        let a = wide.as_primitive::<Float64Type>();
        touch.each(|row, slot, w| {
            if a.is_valid(row) {
                self.add(slot, a.value(row), w);
            }
        });
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (sums, errors) = (state[0].as_primitive::<Float64Type>(), state[1].as_primitive::<Float64Type>());
        let counts: Vec<_> = state[2..].iter().map(|c| c.as_primitive::<Int64Type>()).collect();
        for (i, slot) in slots.iter().enumerate() {
            let slot = *slot as usize;
            self.add(slot, sums.value(i), 1);
            self.errors[slot] += errors.value(i);
            self.counts[slot] += counts[0].value(i) - 1;
            let special = [counts[1].value(i), counts[2].value(i), counts[3].value(i)];
            if special != [0; 3] {
                self.special.resize(self.sums.len(), [0; 3]);
                for (have, more) in self.special[slot].iter_mut().zip(special) {
                    *have += more;
                }
            }
        }
        Ok(())
    }

    fn values(&mut self, slots: &[u32], _failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let values: ScalarBuffer<f64> = slots.iter().map(|s| self.read(*s as usize)).collect();
        Ok(vec![Arc::new(Float64Array::new(values, some(&self.counts, slots)))])
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let floats =
            |v: &[f64]| -> ArrayRef { Arc::new(Float64Array::from_iter_values(slots.iter().map(|s| v[*s as usize]))) };
        let special = |k: usize| -> ArrayRef {
            let read = |s: &u32| self.special.get(*s as usize).map_or(0, |c| c[k]);
            Arc::new(Int64Array::from_iter_values(slots.iter().map(read)))
        };
        let counts = ints(&self.counts, slots);
        Ok(vec![floats(&self.sums), floats(&self.errors), counts, special(0), special(1), special(2)])
    }

    fn clear(&mut self, slots: &[u32]) {
        for s in slots {
            let s = *s as usize;
            (self.sums[s], self.errors[s], self.counts[s]) = (0.0, 0.0, 0);
            if let Some(special) = self.special.get_mut(s) {
                *special = [0; 3];
            }
        }
    }

    fn bytes(&self) -> usize {
        (self.sums.capacity() + self.errors.capacity() + self.counts.capacity()) * 8 + self.special.capacity() * 24
    }
}

/// `min` or `max` over a primitive column, for input that only grows. Floats are taken in canonical form and
/// compared by total order, in which NaN is then the largest.
pub(crate) struct Extreme<T: ArrowPrimitiveType> {
    data_type: DataType,
    max: bool,
    values: Vec<T::Native>,
    counts: Vec<i64>,
}

impl<T: ArrowPrimitiveType> Extreme<T> {
    pub(crate) fn new(data_type: DataType, max: bool) -> Self {
        Extreme { data_type, max, values: vec![], counts: vec![] }
    }

    fn take_in(&mut self, touch: &Touch<'_>, a: &PrimitiveArray<T>) {
        let (values, counts, max) = (&mut self.values, &mut self.counts, self.max);
        let mut one = |row: usize, slot: usize| {
            let v = a.values()[row];
            let better = if max { v.is_gt(values[slot]) } else { v.is_lt(values[slot]) };
            if better || counts[slot] == 0 {
                values[slot] = v;
            }
            counts[slot] = 1;
        };
        if a.null_count() > 0 {
            touch.each(|row, slot, _| {
                if a.is_valid(row) {
                    one(row, slot);
                }
            });
        } else if let Some(runs) = touch.runs() {
            for run in runs {
                let rows = &a.values()[run.start as usize..run.end as usize];
                let of = |best: T::Native, v: &T::Native| {
                    let better = if max { v.is_gt(best) } else { v.is_lt(best) };
                    if better { *v } else { best }
                };
                let slot = run.slot as usize;
                let first = if counts[slot] == 0 { rows[0] } else { values[slot] };
                (values[slot], counts[slot]) = (rows.iter().fold(first, of), 1);
            }
        } else {
            touch.each(|row, slot, _| one(row, slot));
        }
    }
}

impl<T: ArrowPrimitiveType> Accumulate for Extreme<T> {
    fn grow(&mut self, slots: usize) {
        self.values.resize(slots, T::Native::ZERO);
        self.counts.resize(slots, 0);
    }

    fn reserve(&mut self, slots: usize) {
        self.values.reserve(slots);
        self.counts.reserve(slots);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        self.take_in(touch, canonical(&args[0])?.as_primitive::<T>());
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let touch = Touch { slots, ..Touch::default() };
        self.take_in(&touch, canonical(&state[0])?.as_primitive::<T>());
        Ok(())
    }

    fn values(&mut self, slots: &[u32], _failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let values: ScalarBuffer<T::Native> = slots.iter().map(|s| self.values[*s as usize]).collect();
        let array = PrimitiveArray::<T>::new(values, some(&self.counts, slots));
        Ok(vec![Arc::new(array.with_data_type(self.data_type.clone()))])
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.values(slots, &mut Failures::default())
    }

    fn clear(&mut self, slots: &[u32]) {
        for s in slots {
            self.counts[*s as usize] = 0;
        }
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.counts.capacity() * 8
    }
}
