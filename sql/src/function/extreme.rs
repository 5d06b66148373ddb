//! `min` and `max` over floats by group, where DataFusion's start from the largest finite number and let a
//! NaN decide by where it stands: here NaN is the largest value, and a group of infinities has one as its
//! least. All else of the two functions is DataFusion's, but what it would take from statistics of floats.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion::physical_expr::NullState;
use millstream_engine::float::canonical;

use super::sum::kept;

/// See the module's text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Extreme {
    plain: Arc<AggregateUDF>,
    max: bool,
}

impl Extreme {
    pub(super) fn min() -> Self {
        Extreme { plain: min_udaf(), max: false }
    }

    pub(super) fn max() -> Self {
        Extreme { plain: max_udaf(), max: true }
    }

    fn plain(&self) -> &Arc<dyn AggregateUDFImpl> {
        self.plain.inner()
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        self.plain().signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.plain().return_type(arg_types)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.plain().coerce_types(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.plain().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<arrow::datatypes::FieldRef>> {
        self.plain().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.plain().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        type Half = <Float16Type as ArrowPrimitiveType>::Native;
        // What comes before all others: nothing is above NaN, nothing below -infinity.
        Ok(match (args.return_field.data_type(), self.max) {
            (DataType::Float64, false) => Groups::<Float64Type>::boxed(false, f64::NAN),
            (DataType::Float64, true) => Groups::<Float64Type>::boxed(true, f64::NEG_INFINITY),
            (DataType::Float32, false) => Groups::<Float32Type>::boxed(false, f32::NAN),
            (DataType::Float32, true) => Groups::<Float32Type>::boxed(true, f32::NEG_INFINITY),
            (DataType::Float16, false) => Groups::<Float16Type>::boxed(false, Half::NAN),
            (DataType::Float16, true) => Groups::<Float16Type>::boxed(true, Half::NEG_INFINITY),
            _ => return self.plain().create_groups_accumulator(args),
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.plain().create_sliding_accumulator(args)
    }

    fn is_descending(&self) -> Option<bool> {
        self.plain().is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.plain().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        // Statistics of floats leave NaN out.
        if args.return_type.is_floating() { None } else { self.plain().value_from_stats(args) }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain().documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.plain().set_monotonicity(data_type)
    }
}

/// The least or largest float of each group.
struct Groups<T: ArrowPrimitiveType + Send> {
    max: bool,
    start: T::Native,
    values: Vec<T::Native>,
    nulls: NullState,
}

impl<T: ArrowPrimitiveType + Send> Groups<T> {
    fn boxed(max: bool, start: T::Native) -> Box<dyn GroupsAccumulator> {
        Box::new(Groups::<T> { max, start, values: vec![], nulls: NullState::new() })
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.values.resize(total, self.start);
        let values = canonical(&values[0])?;
        let (of, max) = (&mut self.values[..], self.max);
        let take = |group: usize, v: T::Native| {
            let have = &mut of[group];
            if (max && v.is_gt(*have)) || (!max && v.is_lt(*have)) {
                *have = v;
            }
        };
        self.nulls.accumulate(groups, values.as_primitive::<T>(), filter, total, take);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(states, groups, None, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let values = emit.take_needed(&mut self.values);
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), self.nulls.build(emit))))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let a = values[0].as_primitive::<T>();
        let nulls = NullBuffer::union(a.nulls(), kept(filter).as_ref());
        Ok(vec![Arc::new(PrimitiveArray::<T>::new(a.values().clone(), nulls))])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.nulls.size()
    }
}
