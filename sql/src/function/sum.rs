//! `sum`, which says when its result does not fit.
//!
//! As in continuous queries what a sum's own width cannot hold is carried, and the sum is judged when it is
//! read: `sum(v): 9223372036854775808 does not fit BIGINT; write sum(v::DECIMAL(38, 0))`. The state of a part
//! is the sum and its carry; a null carry is 0.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, ListArray, PrimitiveArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field, FieldRef, Int64Type, IntervalUnit,
    TimeUnit, UInt64Type,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::sum::Sum as Plain;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion::physical_expr::NullState;
use millstream_engine::operator::aggregate::sum::{Carried, Room, Shown};

use super::frame::{FloatFrame, IntervalSum};

/// See the module's text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Sum {
    plain: Plain,
}

impl Default for Sum {
    fn default() -> Self {
        Sum { plain: Plain::new() }
    }
}

/// Calls `$make::<T>($args)` with the type `T` of sums of `$type`.
macro_rules! by_type {
    ($type:expr, $make:ident($($arg:expr),*), $other:expr) => {
        match $type {
            DataType::Int64 => $make::<Int64Type>($($arg),*),
            DataType::UInt64 => $make::<UInt64Type>($($arg),*),
            DataType::Decimal32(_, _) => $make::<Decimal32Type>($($arg),*),
            DataType::Decimal64(_, _) => $make::<Decimal64Type>($($arg),*),
            DataType::Decimal128(_, _) => $make::<Decimal128Type>($($arg),*),
            DataType::Decimal256(_, _) => $make::<Decimal256Type>($($arg),*),
            DataType::Duration(TimeUnit::Second) => $make::<DurationSecondType>($($arg),*),
            DataType::Duration(TimeUnit::Millisecond) => $make::<DurationMillisecondType>($($arg),*),
            DataType::Duration(TimeUnit::Microsecond) => $make::<DurationMicrosecondType>($($arg),*),
            DataType::Duration(TimeUnit::Nanosecond) => $make::<DurationNanosecondType>($($arg),*),
            _ => $other,
        }
    };
}
pub(super) use by_type;

/// The types of sums that carry.
pub(super) trait Summed: ArrowPrimitiveType<Native: Carried + Hash + Eq> + Debug + Send + Sync {}

impl<T: ArrowPrimitiveType<Native: Carried + Hash + Eq> + Debug + Send + Sync> Summed for T {}

/// The call as messages show it.
pub(super) fn shown(args: &AccumulatorArgs<'_>, function: &str) -> Shown {
    Shown::new(function, args.name, args.is_distinct, args.exprs, args.return_field.data_type())
}

/// The error of a value that does not fit.
pub(super) fn misfit(call: &Shown, whole: Option<arrow::datatypes::i256>) -> DataFusionError {
    DataFusionError::Execution(call.misfit(whole).to_string())
}

fn carries(t: &DataType) -> bool {
    !matches!(t, DataType::Float64 | DataType::Interval(_))
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let (call, t) = (shown(&args, "sum"), args.return_field.data_type().clone());
        match &t {
            DataType::Float64 => self.plain.accumulator(args),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Ok(Box::new(IntervalSum::new(args.name, args.is_distinct)))
            }
            _ if args.is_distinct => by_type!(t, distinct(call), self.plain.accumulator(args)),
            _ => by_type!(t, single(call), self.plain.accumulator(args)),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name: &str, t| Arc::new(Field::new(format_state_name(args.name, name), t, true));
        Ok(match args.return_field.data_type() {
            DataType::Interval(IntervalUnit::MonthDayNano) => vec![field("sum", IntervalSum::state_type())],
            t if args.is_distinct || !carries(t) => self.plain.state_fields(args)?,
            t => vec![field("sum", t.clone()), field("carry", DataType::Int64)],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct && !matches!(args.return_field.data_type(), DataType::Interval(_))
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let (call, t) = (shown(&args, "sum"), args.return_field.data_type().clone());
        by_type!(t, groups(call), self.plain.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match args.return_field.data_type() {
            DataType::Float64 if args.is_distinct => self.plain.create_sliding_accumulator(args),
            DataType::Float64 => Ok(Box::new(FloatFrame::new(false))),
            // The others can take rows back.
            _ => self.accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.plain.set_monotonicity(data_type)
    }
}

fn single<T: Summed>(call: Shown) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(Single::<T> { room: Room::of(&call.result), call, total: Total::default(), count: 0 }))
}

fn distinct<T: Summed>(call: Shown) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(DistinctSum::<T> { call, values: Distinct::default() }))
}

fn groups<T: Summed>(call: Shown) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(Groups::<T> { call, sums: Sums::default(), nulls: NullState::new() }))
}

/// A sum: `low` and what it has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total<N> {
    pub(super) low: N,
    pub(super) carry: i64,
}

impl<N: Carried> Total<N> {
    pub(super) fn add(&mut self, (more, carry): (N, i64)) {
        let (low, over) = self.low.plus(more);
        (self.low, self.carry) = (low, self.carry + carry + over);
    }

    pub(super) fn take(&mut self, (less, carry): (N, i64)) {
        let (low, over) = self.low.minus(less);
        (self.low, self.carry) = (low, self.carry - carry + over);
    }

    pub(super) fn whole(&self) -> Option<arrow::datatypes::i256> {
        self.low.whole(self.carry)
    }
}

/// The sum of the values of `a` that are not null, and what it carries.
pub(super) fn sum_of<T: Summed>(a: &PrimitiveArray<T>) -> (T::Native, i64) {
    let Some(nulls) = a.nulls().filter(|n| n.null_count() > 0) else { return T::Native::sum_of(a.values()) };
    let mut total = Total::default();
    nulls.valid_slices().for_each(|(from, to)| total.add(T::Native::sum_of(&a.values()[from..to])));
    (total.low, total.carry)
}

/// The sum of one group, from which rows can be taken back.
#[derive(Debug)]
struct Single<T: Summed> {
    call: Shown,
    room: Room,
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
        if self.count > 0 && !self.room.holds(self.total.whole()) {
            return Err(misfit(&self.call, self.total.whole()));
        }
        ScalarValue::new_primitive::<T>((self.count > 0).then_some(self.total.low), &self.call.result)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let low = (self.count > 0).then_some(self.total.low);
        Ok(vec![
            ScalarValue::new_primitive::<T>(low, &self.call.result)?,
            ScalarValue::Int64(Some(self.total.carry).filter(|c| *c != 0)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(&states[..1])?;
        self.total.carry += states[1].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of all groups; the carries are made at the first that is not 0.
#[derive(Debug, Default)]
pub(super) struct Sums<N> {
    pub(super) lows: Vec<N>,
    carries: Vec<i64>,
}

impl<N: Carried> Sums<N> {
    pub(super) fn grow(&mut self, groups: usize) {
        self.lows.resize(groups, N::default());
        if !self.carries.is_empty() {
            self.carries.resize(groups, 0);
        }
    }

    /// Adds to a group, of which there are `lows.len()`.
    #[inline]
    pub(super) fn add(lows: &mut [N], carries: &mut Vec<i64>, group: usize, v: N) {
        let (sum, carry) = lows[group].plus(v);
        lows[group] = sum;
        if carry != 0 {
            Self::add_carry(carries, lows.len(), group, carry);
        }
    }

    #[cold]
    fn add_carry(carries: &mut Vec<i64>, groups: usize, group: usize, carry: i64) {
        carries.resize(groups, 0);
        carries[group] += carry;
    }

    /// Adds a sum with what it has carried.
    pub(super) fn merge(&mut self, group: usize, (more, carry): (N, i64)) {
        Self::add(&mut self.lows, &mut self.carries, group, more);
        if carry != 0 {
            Self::add_carry(&mut self.carries, self.lows.len(), group, carry);
        }
    }

    /// What adding takes.
    pub(super) fn parts(&mut self) -> (&mut [N], &mut Vec<i64>) {
        (&mut self.lows, &mut self.carries)
    }

    /// Adds carries, of which most are null.
    pub(super) fn merge_carries(&mut self, groups: &[usize], more: &Int64Array) {
        if more.null_count() == more.len() {
            return;
        }
        for (group, carry) in groups.iter().zip(more.iter()) {
            if let Some(carry) = carry.filter(|c| *c != 0) {
                Self::add_carry(&mut self.carries, self.lows.len(), *group, carry);
            }
        }
    }

    /// The first groups, with their carries, none where all are 0.
    pub(super) fn take(&mut self, emit: EmitTo) -> (Vec<N>, Option<Vec<i64>>) {
        let carries = (!self.carries.is_empty()).then(|| emit.take_needed(&mut self.carries));
        (emit.take_needed(&mut self.lows), carries)
    }

    pub(super) fn bytes(&self) -> usize {
        self.lows.capacity() * size_of::<N>() + self.carries.capacity() * 8
    }
}

/// Carries as a column.
pub(super) fn carry_column(carries: Option<Vec<i64>>, groups: usize) -> ArrayRef {
    Arc::new(carries.map_or_else(|| Int64Array::new_null(groups), Int64Array::from))
}

struct Groups<T: Summed> {
    call: Shown,
    sums: Sums<T::Native>,
    nulls: NullState,
}

impl<T: Summed> Groups<T> {
    fn column(&self, sums: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(self.call.result.clone()))
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
        let (lows, carries) = self.sums.parts();
        let add = |group: usize, v: T::Native| Sums::add(lows, carries, group, v);
        self.nulls.accumulate(groups, values[0].as_primitive::<T>(), filter, total, add);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(&states[..1], groups, None, total)?;
        self.sums.merge_carries(groups, states[1].as_primitive::<Int64Type>());
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (lows, carries) = self.sums.take(emit);
        let nulls = self.nulls.build(emit);
        let whole = |i: usize| lows[i].whole(carries.as_ref().map_or(0, |c| c[i]));
        if carries.is_some() || self.call.result.is_decimal() {
            let room = Room::of(&self.call.result);
            let valid = |i: &usize| nulls.as_ref().is_none_or(|n| n.is_valid(*i));
            if let Some(i) = (0..lows.len()).filter(valid).find(|i| !room.holds(whole(*i))) {
                return Err(misfit(&self.call, whole(i)));
            }
        }
        Ok(self.column(lows, nulls))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (lows, carries) = self.sums.take(emit);
        let nulls = self.nulls.build(emit);
        let carries = carry_column(carries, lows.len());
        Ok(vec![self.column(lows, nulls), carries])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let a = values[0].as_primitive::<T>();
        let nulls = NullBuffer::union(a.nulls(), kept(filter).as_ref());
        let sums = PrimitiveArray::<T>::new(a.values().clone(), nulls).with_data_type(self.call.result.clone());
        Ok(vec![Arc::new(sums), carry_column(None, a.len())])
    }

    fn size(&self) -> usize {
        self.sums.bytes() + self.nulls.size()
    }
}

/// A filter as the rows that are not null.
pub(super) fn kept(filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let filter = filter?;
    Some(NullBuffer::new(match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    }))
}

/// Distinct values, each with how often it occurs, so that rows can be taken back.
#[derive(Debug)]
pub(super) struct Distinct<T: Summed> {
    values: HashMap<T::Native, u64>,
}

impl<T: Summed> Default for Distinct<T> {
    fn default() -> Self {
        Distinct { values: HashMap::new() }
    }
}

impl<T: Summed> Distinct<T> {
    pub(super) fn add(&mut self, values: &ArrayRef) {
        for v in values.as_primitive::<T>().iter().flatten() {
            *self.values.entry(v).or_default() += 1;
        }
    }

    pub(super) fn take(&mut self, values: &ArrayRef) {
        for v in values.as_primitive::<T>().iter().flatten() {
            if let Some(n) = self.values.get_mut(&v) {
                *n -= 1;
                if *n == 0 {
                    self.values.remove(&v);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn total(&self) -> Total<T::Native> {
        let mut total = Total::default();
        self.values.keys().for_each(|v| total.add((*v, 0)));
        total
    }

    /// A list of the values, of `item`.
    pub(super) fn state(&self, item: &DataType) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<T>::from_iter_values(self.values.keys().copied()).with_data_type(item.clone());
        let field = Arc::new(Field::new_list_field(item.clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        Ok(vec![ScalarValue::List(Arc::new(ListArray::try_new(field, offsets, Arc::new(values), None)?))])
    }

    pub(super) fn merge(&mut self, states: &[ArrayRef]) {
        states[0].as_list::<i32>().iter().flatten().for_each(|values| self.add(&values));
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() * (size_of::<T::Native>() + 9)
    }
}

/// `sum(DISTINCT x)`.
#[derive(Debug)]
struct DistinctSum<T: Summed> {
    call: Shown,
    values: Distinct<T>,
}

impl<T: Summed> Accumulator for DistinctSum<T> {
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
        let total = self.values.total();
        if !Room::of(&self.call.result).holds(total.whole()) {
            return Err(misfit(&self.call, total.whole()));
        }
        ScalarValue::new_primitive::<T>((self.values.len() > 0).then_some(total.low), &self.call.result)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state(&self.call.result)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge(states);
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.bytes()
    }
}
