//! `avg`: of decimals exact and rounded half away from zero, of durations without wrapping.
//!
//! The result of DECIMAL(p, s) has up to four more digits behind the point, as far as there is room beside
//! the digits before it: an average is never larger than the largest value, so it always fits where the
//! digits before the point do. What there is no room for at all (DECIMAL(38, 0) keeps four) is an error that
//! names the cast to write. Averages of all else are DataFusion's, but for frames of windows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, PrimitiveArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type, Decimal128Type,
    Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Field, FieldRef, Int64Type, TimeUnit, UInt64Type, i256,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::average::Avg as Plain;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion::physical_expr::NullState;
use millstream_engine::operator::aggregate::sum::{Carried, Room, Shown};

use super::frame::FloatFrame;
use super::sum::{Distinct, Summed, Sums, Total, by_type, kept, misfit, shown, sum_of};

/// See the module's text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Average {
    plain: Plain,
    /// Whether digits behind the point give way to those before it.
    roomy: bool,
}

impl Average {
    pub(super) fn new(roomy: bool) -> Self {
        Average { plain: Plain::new(), roomy }
    }
}

/// Digits behind the point that an average has more than its values, where there is room.
const MORE: i8 = 4;
/// The fewest that it has then, or four more than its values if that is less, whatever room that leaves.
const FEWEST: i8 = 6;

/// The precision and scale of averages of decimals, of which there can be `most` digits.
fn digits(precision: u8, scale: i8, most: u8) -> (u8, i8) {
    let before = precision as i8 - scale;
    let room = (most as i8).saturating_sub(before);
    let scale = (scale + MORE).min(room.max(scale).max(FEWEST)).min(most as i8);
    ((before + scale).clamp(1, most as i8) as u8, scale)
}

/// The type in which values of type `t` are added up by the state.
fn sum_type(t: &DataType) -> DataType {
    match t {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *s),
        DataType::Decimal128(p, s) if p + 13 <= DECIMAL128_MAX_PRECISION => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, *s)
        }
        DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, *s),
        _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    }
}

fn is_own(t: &DataType) -> bool {
    t.is_decimal() || matches!(t, DataType::Duration(_))
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.plain.aliases()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(match arg_types {
            [DataType::Decimal128(p, s)] if self.roomy => {
                let (p, s) = digits(*p, *s, DECIMAL128_MAX_PRECISION);
                DataType::Decimal128(p, s)
            }
            [DataType::Decimal256(p, s)] if self.roomy => {
                let (p, s) = digits(*p, *s, DECIMAL256_MAX_PRECISION);
                DataType::Decimal256(p, s)
            }
            _ => self.plain.return_type(arg_types)?,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let t = args.expr_fields[0].data_type().clone();
        if !is_own(&t) {
            return self.plain.accumulator(args);
        }
        let division = Division::new(&args)?;
        match args.is_distinct {
            true => by_type!(t, distinct(division), self.plain.accumulator(args)),
            false => by_type!(t, single(division), self.plain.accumulator(args)),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let t = args.input_fields[0].data_type();
        if !is_own(t) {
            return self.plain.state_fields(args);
        }
        let field = |name: &str, t, nullable| Arc::new(Field::new(format_state_name(args.name, name), t, nullable));
        Ok(match args.is_distinct {
            true => vec![field("avg distinct", list_of(t), false)],
            false => vec![field("count", DataType::UInt64, true), field("sum", sum_type(t), true)],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct && (is_own(args.expr_fields[0].data_type()) || self.plain.groups_accumulator_supported(args))
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let t = args.expr_fields[0].data_type().clone();
        if !is_own(&t) {
            return self.plain.create_groups_accumulator(args);
        }
        let division = Division::new(&args)?;
        by_type!(t, groups(division), self.plain.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let t = args.expr_fields[0].data_type();
        if !is_own(t) && !args.is_distinct {
            return Ok(Box::new(FloatFrame::new(true)));
        }
        self.accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.documentation()
    }
}

/// The type of states of distinct values: with all digits, so that it does not depend on the declared ones.
fn list_of(t: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item_of(t), true)))
}

fn item_of(t: &DataType) -> DataType {
    match t {
        DataType::Decimal32(_, s) => DataType::Decimal32(9, *s),
        DataType::Decimal64(_, s) => DataType::Decimal64(18, *s),
        DataType::Decimal128(_, s) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *s),
        DataType::Decimal256(_, s) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, *s),
        other => other.clone(),
    }
}

/// How a sum becomes an average.
#[derive(Clone, Debug)]
struct Division {
    call: Shown,
    value: DataType,
    room: Room,
    /// What a sum is multiplied by to be in units of the result.
    factor: i256,
}

impl Division {
    fn new(args: &AccumulatorArgs<'_>) -> Result<Self> {
        let scale = |t: &DataType| match t {
            DataType::Decimal32(_, s)
            | DataType::Decimal64(_, s)
            | DataType::Decimal128(_, s)
            | DataType::Decimal256(_, s) => *s,
            _ => 0,
        };
        let (call, value) = (shown(args, "avg"), args.expr_fields[0].data_type().clone());
        let more = u32::try_from(scale(&call.result) - scale(&value))
            .map_err(|_| DataFusionError::Internal(format!("an average of {value} is no {}", call.result)))?;
        let factor = i256::from_i128(10).wrapping_pow(more);
        Ok(Division { room: Room::of(&call.result), call, value, factor })
    }

    /// `sum / count`, rounded half away from zero, in units of the result.
    fn average(&self, sum: Option<i256>, count: u64) -> Result<i256> {
        let divided = sum.and_then(|s| s.checked_mul(self.factor)).and_then(|s| {
            let count = i256::from_i128(count.into());
            let (whole, rest) = (s.checked_div(count)?, s.checked_rem(count)?);
            let up = rest.wrapping_abs().wrapping_add(rest.wrapping_abs()) >= count;
            Some(if up { whole.wrapping_add(s.signum()) } else { whole })
        });
        match divided {
            Some(v) if self.room.holds(divided) => Ok(v),
            _ => Err(misfit(&self.call, divided)),
        }
    }

    fn scalar<T: Summed>(&self, sum: Option<i256>, count: u64) -> Result<ScalarValue> {
        let value = (count > 0).then(|| self.average(sum, count)).transpose()?;
        ScalarValue::new_primitive::<T>(value.map(|v| T::Native::parts(v).0), &self.call.result)
    }
}

fn single<T: Summed>(division: Division) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(Single::<T> { division, total: Total::default(), count: 0 }))
}

fn distinct<T: Summed>(division: Division) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(DistinctAverage::<T> { division, values: Distinct::default() }))
}

fn groups<T: Summed>(division: Division) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(Groups::<T> { division, sums: Sums::default(), counts: vec![], nulls: NullState::new() }))
}

/// Sums of type `t` from numbers.
fn sum_column(t: &DataType, sums: impl Iterator<Item = Option<i256>>) -> Result<ArrayRef> {
    let t = sum_type(t);
    Ok(match &t {
        DataType::Decimal256(_, _) => Arc::new(sums.collect::<Decimal256Array>().with_data_type(t)),
        _ => Arc::new(sums.map(|s| s.map(i256::as_i128)).collect::<Decimal128Array>().with_data_type(t)),
    })
}

/// Numbers from a column that [`sum_column`] made.
fn sums_of(column: &ArrayRef) -> Result<Decimal256Array> {
    let scale = match column.data_type() {
        DataType::Decimal128(_, s) | DataType::Decimal256(_, s) => *s,
        other => return Err(DataFusionError::Internal(format!("a sum of type {other}"))),
    };
    let wide = cast(column, &DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale))?;
    Ok(wide.as_primitive::<Decimal256Type>().clone())
}

/// The average of one group, from which rows can be taken back.
#[derive(Debug)]
struct Single<T: Summed> {
    division: Division,
    total: Total<T::Native>,
    count: u64,
}

impl<T: Summed> Accumulator for Single<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let a = values[0].as_primitive::<T>();
        self.count += (a.len() - a.null_count()) as u64;
        self.total.add(sum_of(a));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let a = values[0].as_primitive::<T>();
        self.count -= (a.len() - a.null_count()) as u64;
        self.total.take(sum_of(a));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.division.scalar::<T>(self.total.whole(), self.count)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.count > 0).then(|| self.total.whole()).flatten();
        let sum = sum_column(&self.division.value, [sum].into_iter())?;
        Ok(vec![ScalarValue::from(self.count), ScalarValue::try_from_array(&sum, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += states[0].as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        for sum in sums_of(&states[1])?.iter().flatten() {
            self.total.add(T::Native::parts(sum));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// `avg(DISTINCT x)`.
#[derive(Debug)]
struct DistinctAverage<T: Summed> {
    division: Division,
    values: Distinct<T>,
}

impl<T: Summed> Accumulator for DistinctAverage<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.add(&values[0]);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.take(&values[0]);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.division.scalar::<T>(self.values.total().whole(), self.values.len() as u64)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state(&item_of(&self.division.value))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge(states);
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.bytes()
    }
}

struct Groups<T: Summed> {
    division: Division,
    sums: Sums<T::Native>,
    counts: Vec<u64>,
    nulls: NullState,
}

impl<T: Summed> Groups<T> {
    /// The sums and counts of the first groups.
    fn take(&mut self, emit: EmitTo) -> (Vec<Option<i256>>, Vec<u64>, Option<NullBuffer>) {
        let (lows, carries) = self.sums.take(emit);
        let carry = |i: usize| carries.as_ref().map_or(0, |c| c[i]);
        let sums = lows.iter().enumerate().map(|(i, low)| low.whole(carry(i))).collect();
        (sums, emit.take_needed(&mut self.counts), self.nulls.build(emit))
    }
}

impl<T: Summed> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.sums.grow(total);
        self.counts.resize(total, 0);
        let ((lows, carries), counts) = (self.sums.parts(), &mut self.counts[..]);
        let add = |group: usize, v: T::Native| {
            Sums::add(lows, carries, group, v);
            counts[group] += 1;
        };
        self.nulls.accumulate(groups, values[0].as_primitive::<T>(), filter, total, add);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.sums.grow(total);
        self.counts.resize(total, 0);
        let more = states[0].as_primitive::<UInt64Type>();
        let counts = &mut self.counts[..];
        self.nulls.accumulate(groups, more, None, total, |group, n: u64| counts[group] += n);
        for (group, sum) in groups.iter().zip(sums_of(&states[1])?.iter()) {
            if let Some(sum) = sum {
                self.sums.merge(*group, T::Native::parts(sum));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, counts, nulls) = self.take(emit);
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i)) && counts[i] > 0;
        let value = |i: usize| match valid(i) {
            true => Ok(Some(T::Native::parts(self.division.average(sums[i], counts[i])?).0)),
            false => Ok(None),
        };
        let values = (0..sums.len()).map(value).collect::<Result<PrimitiveArray<T>>>()?;
        Ok(Arc::new(values.with_data_type(self.division.call.result.clone())))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts, nulls) = self.take(emit);
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        let sums = sums.into_iter().enumerate().map(|(i, sum)| sum.filter(|_| valid(i)));
        let sums = sum_column(&self.division.value, sums)?;
        Ok(vec![Arc::new(UInt64Array::new(counts.into(), nulls)), sums])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let a = values[0].as_primitive::<T>();
        let nulls = NullBuffer::union(a.nulls(), kept(filter).as_ref());
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        let sums = (0..a.len()).map(|i| valid(i).then(|| a.value(i).whole(0)).flatten());
        let sums = sum_column(&self.division.value, sums)?;
        Ok(vec![Arc::new(UInt64Array::new(vec![1; a.len()].into(), nulls.clone())), sums])
    }

    fn size(&self) -> usize {
        self.sums.bytes() + self.counts.capacity() * 8 + self.nulls.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_keep_the_digits_before_the_point() {
        let of = |p, s| digits(p, s, DECIMAL128_MAX_PRECISION);
        assert_eq!(of(10, 2), (14, 6));
        assert_eq!(of(34, 10), (38, 14));
        assert_eq!(of(38, 18), (38, 18));
        assert_eq!(of(36, 18), (38, 20));
        assert_eq!(of(38, 0), (38, 4));
        assert_eq!(of(38, 2), (38, 6));
        assert_eq!(of(38, 38), (38, 38));
    }
}
