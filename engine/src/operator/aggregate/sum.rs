//! `sum` over integers and decimals. It never wraps: what a sum's own width cannot hold is carried.
//!
//! A sum is `low + carry * 2^bits`, so rows may come in any order, and be taken back in any order, with
//! values in between that the result type cannot hold. Only when the sum is read is it judged: a slot whose
//! sum does not fit has none, and says so. The carries of all slots are made at the first that is not 0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal256Type, DecimalType, Int64Type, i256};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{CastExpr, Column};

use super::native::{ints, some};
use crate::error::Result;
use crate::expr::{Failure, Failures};
use crate::format::sql_name;
use crate::state::accumulate::{Accumulate, Touch};

/// A number whose sums carry.
pub trait Carried: Copy + Default + Send + Sync {
    /// `self + more` in the type's width, and what it carries.
    fn plus(self, more: Self) -> (Self, i64);
    /// `self - less` in the type's width, and what it carries.
    fn minus(self, less: Self) -> (Self, i64);
    /// The number that `self` and `carry` make; `None` where there is no room for it.
    fn whole(self, carry: i64) -> Option<i256>;
    /// The parts of a number.
    fn parts(whole: i256) -> (Self, i64);
    /// The sum of `values`, and what it carries.
    fn sum_of(values: &[Self]) -> (Self, i64) {
        values.iter().fold((Self::default(), 0), |(sum, carried), v| {
            let (sum, carry) = sum.plus(*v);
            (sum, carried + carry)
        })
    }
}

impl Carried for i32 {
    #[inline]
    fn plus(self, more: i32) -> (i32, i64) {
        let (sum, over) = self.overflowing_add(more);
        (sum, if over { i64::from(more.signum()) } else { 0 })
    }

    #[inline]
    fn minus(self, less: i32) -> (i32, i64) {
        let (sum, over) = self.overflowing_sub(less);
        (sum, if over { -i64::from(less.signum()) } else { 0 })
    }

    fn whole(self, carry: i64) -> Option<i256> {
        Some(i256::from_i128(i128::from(self) + (i128::from(carry) << 32)))
    }

    fn parts(whole: i256) -> (i32, i64) {
        let whole = whole.as_i128();
        let low = whole as i32;
        (low, ((whole - i128::from(low)) >> 32) as i64)
    }
}

impl Carried for i64 {
    #[inline]
    fn plus(self, more: i64) -> (i64, i64) {
        let (sum, over) = self.overflowing_add(more);
        (sum, if over { more.signum() } else { 0 })
    }

    #[inline]
    fn minus(self, less: i64) -> (i64, i64) {
        let (sum, over) = self.overflowing_sub(less);
        (sum, if over { -less.signum() } else { 0 })
    }

    fn whole(self, carry: i64) -> Option<i256> {
        Some(i256::from_i128(i128::from(self) + (i128::from(carry) << 64)))
    }

    fn parts(whole: i256) -> (i64, i64) {
        let whole = whole.as_i128();
        let low = whole as i64;
        (low, ((whole - i128::from(low)) >> 64) as i64)
    }

    fn sum_of(values: &[i64]) -> (i64, i64) {
        // Halves add up without a carry, many at a time.
        let of = |part: &[i64]| {
            let (high, low) =
                part.iter().fold((0i64, 0u64), |(high, low), v| (high + (v >> 32), low + (*v as u64 & 0xffff_ffff)));
            (i128::from(high) << 32) + i128::from(low)
        };
        i64::parts(i256::from_i128(values.chunks(1 << 30).map(of).sum()))
    }
}

impl Carried for u64 {
    #[inline]
    fn plus(self, more: u64) -> (u64, i64) {
        let (sum, over) = self.overflowing_add(more);
        (sum, i64::from(over))
    }

    #[inline]
    fn minus(self, less: u64) -> (u64, i64) {
        let (sum, over) = self.overflowing_sub(less);
        (sum, -i64::from(over))
    }

    fn whole(self, carry: i64) -> Option<i256> {
        Some(i256::from_i128(i128::from(self) + (i128::from(carry) << 64)))
    }

    fn parts(whole: i256) -> (u64, i64) {
        let whole = whole.as_i128();
        (whole as u64, (whole >> 64) as i64)
    }
}

impl Carried for i128 {
    #[inline]
    fn plus(self, more: i128) -> (i128, i64) {
        let (sum, over) = self.overflowing_add(more);
        (sum, if over { more.signum() as i64 } else { 0 })
    }

    #[inline]
    fn minus(self, less: i128) -> (i128, i64) {
        let (sum, over) = self.overflowing_sub(less);
        (sum, if over { -less.signum() as i64 } else { 0 })
    }

    fn whole(self, carry: i64) -> Option<i256> {
        Some(i256::from_i128(self).wrapping_add(i256::from_parts(0, i128::from(carry))))
    }

    fn parts(whole: i256) -> (i128, i64) {
        let (low, high) = whole.to_parts();
        let low = low as i128;
        (low, (high + i128::from(low < 0)) as i64)
    }
}

impl Carried for i256 {
    fn plus(self, more: i256) -> (i256, i64) {
        let sum = self.wrapping_add(more);
        let over = self.is_negative() == more.is_negative() && sum.is_negative() != more.is_negative();
        (
            sum,
            if !over {
                0
            } else if more.is_negative() {
                -1
            } else {
                1
            },
        )
    }

    fn minus(self, less: i256) -> (i256, i64) {
        let sum = self.wrapping_sub(less);
        let over = self.is_negative() != less.is_negative() && sum.is_negative() != self.is_negative();
        (
            sum,
            if !over {
                0
            } else if less.is_negative() {
                1
            } else {
                -1
            },
        )
    }

    fn whole(self, carry: i64) -> Option<i256> {
        (carry == 0).then_some(self)
    }

    fn parts(whole: i256) -> (i256, i64) {
        (whole, 0)
    }
}

/// The numbers, in units of its scale, that a type holds.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    least: i256,
    most: i256,
}

impl Room {
    /// Of `result`, a type of sums.
    pub fn of(result: &DataType) -> Self {
        let digits = |p: u8| i256::from_i128(10).wrapping_pow(u32::from(p)).wrapping_sub(i256::ONE);
        let (least, most) = match result {
            DataType::Int64 | DataType::Duration(_) => (i256::from(i64::MIN), i256::from(i64::MAX)),
            DataType::UInt64 => (i256::ZERO, i256::from_i128(u64::MAX.into())),
            DataType::Decimal32(p, _)
            | DataType::Decimal64(p, _)
            | DataType::Decimal128(p, _)
            | DataType::Decimal256(p, _) => (digits(*p).wrapping_neg(), digits(*p)),
            _ => (i256::MIN, i256::MAX),
        };
        Room { least, most }
    }

    /// Whether there is room for `whole`.
    pub fn holds(&self, whole: Option<i256>) -> bool {
        whole.is_some_and(|v| v >= self.least && v <= self.most)
    }
}

/// See the module's text.
pub(crate) struct Sum<T: ArrowPrimitiveType> {
    data_type: DataType,
    /// The call, its argument and its result as misfits show them.
    call: Shown,
    sums: Vec<T::Native>,
    /// Empty while all are 0.
    carries: Vec<i64>,
    counts: Vec<i64>,
}

impl<T: ArrowPrimitiveType> Sum<T>
where
    T::Native: Carried,
{
    pub(crate) fn new(data_type: DataType, call: Shown) -> Self {
        Sum { data_type, call, sums: vec![], carries: vec![], counts: vec![] }
    }

    fn carry(&self, slot: usize) -> i64 {
        self.carries.get(slot).copied().unwrap_or(0)
    }

    fn whole(&self, slot: usize) -> Option<i256> {
        self.sums[slot].whole(self.carry(slot))
    }

    /// Apart, so that where they lie stays in registers.
    fn parts(&mut self) -> Parts<'_, T::Native> {
        Parts { sums: &mut self.sums, counts: &mut self.counts, carries: &mut self.carries }
    }
}

/// The sums of all slots, to be added to.
struct Parts<'a, N> {
    sums: &'a mut [N],
    counts: &'a mut [i64],
    carries: &'a mut Vec<i64>,
}

impl<N: Carried> Parts<'_, N> {
    #[inline]
    fn add(&mut self, slot: usize, v: N, w: i64) {
        let (sum, carry) = match w {
            1 => self.sums[slot].plus(v),
            -1 => self.sums[slot].minus(v),
            w => {
                self.counts[slot] += w;
                return self.add_times(slot, v, w);
            }
        };
        self.sums[slot] = sum;
        self.counts[slot] += w;
        if carry != 0 {
            self.add_carry(slot, carry);
        }
    }

    fn add_run(&mut self, slot: usize, values: &[N]) {
        let (more, carried) = N::sum_of(values);
        let (sum, carry) = self.sums[slot].plus(more);
        self.sums[slot] = sum;
        self.counts[slot] += values.len() as i64;
        if carry + carried != 0 {
            self.add_carry(slot, carry + carried);
        }
    }

    #[cold]
    fn add_times(&mut self, slot: usize, v: N, w: i64) {
        let before = self.carries.get(slot).copied().unwrap_or(0);
        let all = |n: N, carry| n.whole(carry).unwrap_or_default();
        let more = all(v, 0).wrapping_mul(i256::from(w));
        let (sum, carry) = N::parts(all(self.sums[slot], before).wrapping_add(more));
        self.sums[slot] = sum;
        if carry != before {
            self.add_carry(slot, carry - before);
        }
    }

    #[cold]
    fn add_carry(&mut self, slot: usize, carry: i64) {
        self.carries.resize(self.sums.len(), 0);
        self.carries[slot] += carry;
    }
}

impl<T: ArrowPrimitiveType> Accumulate for Sum<T>
where
    T::Native: Carried,
{
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, T::Native::default());
        self.counts.resize(slots, 0);
        if !self.carries.is_empty() {
            self.carries.resize(slots, 0);
        }
    }

    fn reserve(&mut self, slots: usize) {
        self.sums.reserve(slots);
        self.counts.reserve(slots);
    }

    fn update(&mut self, touch: &Touch<'_>, args: &[ArrayRef]) -> Result<()> {
        let widened;
        let array = if args[0].data_type() == &self.data_type || same_native(args[0].data_type(), &self.data_type) {
            &args[0]
        } else {
            widened = cast(&args[0], &self.data_type)?;
            &widened
        };
        let a = array.as_primitive::<T>();
        let (values, mut all) = (a.values(), self.parts());
        if let Some(runs) = touch.runs().filter(|_| a.null_count() == 0) {
            for run in runs {
                all.add_run(run.slot as usize, &values[run.start as usize..run.end as usize]);
            }
        } else if a.null_count() == 0 {
            touch.each(|row, slot, w| all.add(slot, values[row], w));
        } else {
            touch.each(|row, slot, w| {
                if a.is_valid(row) {
                    all.add(slot, values[row], w);
                }
            });
        }
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = (state[0].as_primitive::<T>(), state[1].as_primitive::<Int64Type>());
        let carries = state[2].as_primitive::<Int64Type>();
        let mut all = self.parts();
        for (i, slot) in slots.iter().enumerate() {
            let slot = *slot as usize;
            all.add(slot, sums.value(i), 1);
            all.counts[slot] += counts.value(i) - 1;
        }
        // States of an older form have no carry.
        if carries.null_count() < carries.len() && carries.values().iter().any(|c| *c != 0) {
            for (slot, carry) in slots.iter().zip(carries.iter()) {
                all.add_carry(*slot as usize, carry.unwrap_or(0));
            }
        }
        Ok(())
    }

    fn values(&mut self, slots: &[u32], failures: &mut Failures) -> Result<Vec<ArrayRef>> {
        let values: ScalarBuffer<T::Native> = slots.iter().map(|s| self.sums[*s as usize]).collect();
        let mut nulls = some(&self.counts, slots);
        if !self.carries.is_empty() || self.data_type.is_decimal() {
            let room = Room::of(&self.data_type);
            let fit = BooleanBuffer::collect_bool(slots.len(), |i| room.holds(self.whole(slots[i] as usize)));
            if fit.count_set_bits() < slots.len() {
                for i in (0..slots.len()).filter(|i| !fit.value(*i)) {
                    failures.push(i as u32, self.call.misfit(self.whole(slots[i] as usize)));
                }
                nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(fit)));
            }
        }
        let array = PrimitiveArray::<T>::new(values, nulls);
        Ok(vec![Arc::new(array.with_data_type(self.data_type.clone()))])
    }

    fn state(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let values: ScalarBuffer<T::Native> = slots.iter().map(|s| self.sums[*s as usize]).collect();
        let array = PrimitiveArray::<T>::new(values, None).with_data_type(self.data_type.clone());
        let carries = match self.carries.is_empty() {
            true => Int64Array::from_value(0, slots.len()),
            false => ints(&self.carries, slots).as_primitive::<Int64Type>().clone(),
        };
        Ok(vec![Arc::new(array), ints(&self.counts, slots), Arc::new(carries)])
    }

    fn clear(&mut self, slots: &[u32]) {
        for s in slots {
            let s = *s as usize;
            (self.sums[s], self.counts[s]) = (T::Native::default(), 0);
            if let Some(carry) = self.carries.get_mut(s) {
                *carry = 0;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<T::Native>() + (self.counts.capacity() + self.carries.capacity()) * 8
    }
}

/// Decimals of another precision but the same scale have the same native values.
fn same_native(a: &DataType, b: &DataType) -> bool {
    matches!((a, b), (DataType::Decimal128(_, s), DataType::Decimal128(_, t)) if s == t)
}

/// An aggregate call as messages show it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The function's name.
    pub function: String,
    /// Its argument.
    pub argument: String,
    /// The type of its result.
    pub result: DataType,
}

impl Shown {
    /// A call of `function` over `args` that the plan names `name`.
    pub fn new(function: &str, name: &str, distinct: bool, args: &[Arc<dyn PhysicalExpr>], result: &DataType) -> Self {
        let within = || name.strip_prefix(&format!("{function}("))?.strip_suffix(')');
        let argument = match args.first().and_then(column_of) {
            Some(column) if distinct => format!("DISTINCT {column}"),
            Some(column) => column.to_owned(),
            None => within().unwrap_or(name).to_owned(),
        };
        Shown { function: function.to_owned(), argument, result: result.clone() }
    }

    /// Why a result of `whole` (in units of the result's scale) is none, with the cast that makes room for it.
    pub fn misfit(&self, whole: Option<i256>) -> Failure {
        let scale = match &self.result {
            DataType::Decimal32(_, s)
            | DataType::Decimal64(_, s)
            | DataType::Decimal128(_, s)
            | DataType::Decimal256(_, s) => *s,
            _ => 0,
        };
        let value = whole.map_or("the value".to_owned(), |v| Decimal256Type::format_decimal(v, 76, scale));
        let Shown { function, argument, result } = self;
        let mut reason = format!("{value} does not fit {}", shown_type(result));
        if let Some(wider) = wider(result) {
            reason += &format!("; write {function}({argument}::{wider})");
        }
        Failure { expression: format!("{function}({argument})").into(), reason: reason.into() }
    }
}

/// The column that an argument is, whatever it is cast to.
fn column_of(e: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    if let Some(cast) = e.downcast_ref::<CastExpr>() {
        return column_of(cast.expr());
    }
    e.downcast_ref::<Column>().map(Column::name)
}

fn shown_type(t: &DataType) -> String {
    match t {
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            format!("DECIMAL({p}, {s})")
        }
        other => sql_name(other).to_string(),
    }
}

/// A type in which sums have more room than in `t`.
fn wider(t: &DataType) -> Option<String> {
    const MOST: u8 = DECIMAL128_MAX_PRECISION;
    match t {
        DataType::Int64 | DataType::UInt64 => Some(format!("DECIMAL({MOST}, 0)")),
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) => Some(format!("DECIMAL({MOST}, {s})")),
        DataType::Decimal128(p, s) if *p < MOST => Some(format!("DECIMAL({MOST}, {s})")),
        DataType::Decimal128(_, s) if *s > 0 => Some(format!("DECIMAL({MOST}, 0)")),
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => Some("DOUBLE".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Decimal128Type, UInt64Type};

    use super::*;

    fn shown(result: DataType) -> Shown {
        Shown { function: "sum".to_owned(), argument: "v".to_owned(), result }
    }

    /// Adds each of `rows` to one slot, and reads it.
    fn read<T: ArrowPrimitiveType>(sum: &mut Sum<T>, rows: &[(T::Native, i64)]) -> Result<T::Native, String>
    where
        T::Native: Carried,
    {
        sum.grow(1);
        let values: ScalarBuffer<T::Native> = rows.iter().map(|r| r.0).collect();
        let array = PrimitiveArray::<T>::new(values, None).with_data_type(sum.data_type.clone());
        let weights: Vec<i64> = rows.iter().map(|r| r.1).collect();
        let slots = vec![0; rows.len()];
        let touch = Touch { slots: &slots, weights: Some(&weights), ..Touch::default() };
        sum.update(&touch, &[Arc::new(array)]).expect("rows");
        // Through its state, as a checkpoint does.
        let state = sum.state(&[0]).expect("a state");
        sum.restore(&[0], &state).expect("restores");
        let mut failures = Failures::default();
        let values = sum.values(&[0], &mut failures).expect("values");
        match failures.iter().next() {
            Some((_, why)) => Err(why.to_string()),
            None => Ok(values[0].as_primitive::<T>().value(0)),
        }
    }

    #[test]
    fn a_sum_of_integers_is_judged_when_it_is_read() {
        let mut sum = Sum::<Int64Type>::new(DataType::Int64, shown(DataType::Int64));
        let over = "sum(v): 9223372036854775808 does not fit BIGINT; write sum(v::DECIMAL(38, 0))";
        assert_eq!(read(&mut sum, &[(i64::MAX, 1), (1, 1)]), Err(over.to_owned()));
        assert_eq!(read(&mut sum, &[(2, -1)]), Ok(i64::MAX - 1));
        assert!(read(&mut sum, &[(i64::MIN, 3), (i64::MAX, -2)]).is_err());
        assert_eq!(read(&mut sum, &[(i64::MIN, -3), (i64::MAX, 2), (i64::MAX, -1)]), Ok(-1));
        assert_eq!(read(&mut sum, &[(i64::MIN, 1)]).map_err(|_| ()), Err(()));
    }

    #[test]
    fn unsigned_sums_may_be_below_0_in_between() {
        let mut sum = Sum::<UInt64Type>::new(DataType::UInt64, shown(DataType::UInt64));
        assert_eq!(read(&mut sum, &[(5, -1), (7, 1)]), Ok(2));
        let over = "sum(v): 18446744073709551617 does not fit BIGINT UNSIGNED; write sum(v::DECIMAL(38, 0))";
        assert_eq!(read(&mut sum, &[(u64::MAX, 1)]), Err(over.to_owned()));
        assert_eq!(read(&mut sum, &[(u64::MAX, -2), (u64::MAX, 1)]), Ok(2));
    }

    #[test]
    fn decimals_have_the_digits_that_are_declared() {
        let t = DataType::Decimal128(38, 2);
        let mut sum = Sum::<Decimal128Type>::new(t.clone(), shown(t));
        let most = 10i128.pow(38) - 1;
        let over = "sum(v): 1000000000000000000000000000000000000.00 does not fit DECIMAL(38, 2); \
                    write sum(v::DECIMAL(38, 0))";
        assert_eq!(read(&mut sum, &[(most, 1), (1, 1)]), Err(over.to_owned()));
        assert_eq!(read(&mut sum, &[(1, -1)]), Ok(most));
        assert!(read(&mut sum, &[(most, 9)]).is_err());
        assert_eq!(read(&mut sum, &[(most, -9), (most, -1), (-3, 1)]), Ok(-3));
    }
}
