//! How each aggregate call is computed, and what its state is.

use arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;

use super::sum::{Shown, Sum};
use super::{Aggregate, Call, EmitMode, boxed, distinct, native, rows, said, seen};
use crate::error::{Error, Result};
use crate::format::sql_name;
use crate::state::accumulate::Accumulate;

impl Call {
    /// Its arguments, then its `ORDER BY` expressions.
    pub(super) fn inputs(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let mut all = self.function.expressions();
        all.extend(self.function.order_bys().iter().map(|o| o.expr.clone()));
        all
    }

    /// Its name and types, in words that stay the same as long as its state does.
    pub(super) fn fingerprint(&self, spec: &Aggregate) -> String {
        let types = self.input_types(spec).unwrap_or_default();
        let (ordered, all) = (self.function.order_bys().len(), types.iter().map(sql_name).collect::<Vec<_>>());
        let (args, order) = all.split_at(all.len().saturating_sub(ordered));
        let distinct = if self.function.is_distinct() { "DISTINCT " } else { "" };
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        let filter = if self.filter.is_some() { " FILTER" } else { "" };
        format!("{}({distinct}{}{order}){filter}", self.function.fun().name(), args.join(", "))
    }

    fn input_types(&self, spec: &Aggregate) -> Result<Vec<DataType>> {
        Ok(self.inputs().iter().map(|e| e.data_type(&spec.input)).collect::<Result<_, _>>()?)
    }

    pub(super) fn kind(&self, spec: &Aggregate) -> Result<Kind> {
        use datafusion_expr::utils::AggregateOrderSensitivity as Order;
        let (name, types) = (self.function.fun().name(), self.input_types(spec)?);
        let ordered = !self.function.order_bys().is_empty();
        if self.function.is_distinct() {
            let countable = name == "count" && types.len() == 1 && !ordered;
            return Ok(match countable {
                true if spec.append_only => Kind::Seen(types[0].clone()),
                true => Kind::CountDistinct(types[0].clone()),
                false if spec.append_only => Kind::Boxed,
                false => Kind::Rows(types),
            });
        }
        let result = self.function.field().data_type().clone();
        Ok(match name {
            "count" => Kind::Count,
            "sum" if types[0].is_floating() && result == DataType::Float64 => Kind::Float { average: false },
            "sum" if matches!(result, DataType::Int64 | DataType::UInt64 | DataType::Decimal128(_, _)) => {
                Kind::Sum(result)
            }
            "avg" if types[0].is_numeric() && result == DataType::Float64 => Kind::Float { average: true },
            "min" | "max" if spec.append_only && result.is_primitive() && types[0] == result => {
                Kind::Extreme(result, name == "max")
            }
            _ if !spec.append_only => Kind::Rows(types),
            _ if ordered && self.function.order_sensitivity() == Order::HardRequirement => Kind::Rows(types),
            _ => Kind::Boxed,
        })
    }

    pub(super) fn state_types(&self, spec: &Aggregate) -> Result<Vec<DataType>> {
        Ok(match self.kind(spec)? {
            Kind::Count => vec![DataType::Int64],
            Kind::Sum(t) => vec![t, DataType::Int64, DataType::Int64],
            Kind::Float { .. } => {
                use DataType::{Float64, Int64};
                vec![Float64, Float64, Int64, Int64, Int64, Int64]
            }
            Kind::Extreme(t, _) => vec![t],
            Kind::Seen(t) => seen::Seen::state_types(&t),
            Kind::CountDistinct(t) => distinct::CountDistinct::state_types(&t),
            Kind::Rows(types) => self.with_said(spec, rows::KeptRows::state_types(&types)),
            Kind::Boxed => {
                let state = self.function.state_fields()?;
                self.with_said(spec, state.iter().map(|f| f.data_type().clone()).collect())
            }
        })
    }

    /// The call as messages show it.
    fn shown(&self) -> Shown {
        let f = &self.function;
        Shown::new(f.fun().name(), f.name(), f.is_distinct(), &f.expressions(), f.field().data_type())
    }

    /// How many columns at the end of its state a state written by an older build may lack.
    pub(super) fn new_state(&self, spec: &Aggregate) -> Result<usize> {
        Ok(match self.kind(spec)? {
            // The carry.
            Kind::Sum(_) => 1,
            _ => 0,
        })
    }

    fn with_said(&self, spec: &Aggregate, mut types: Vec<DataType>) -> Vec<DataType> {
        if spec.emit == EmitMode::Changes {
            types.push(self.function.field().data_type().clone());
        }
        types
    }

    /// The accumulator of this call and of those that share it, `calls` in all.
    pub(super) fn accumulator(&self, spec: &Aggregate, calls: usize) -> Result<Box<dyn Accumulate>> {
        let said = |a: Box<dyn Accumulate>| -> Box<dyn Accumulate> {
            match spec.emit {
                EmitMode::Changes => Box::new(said::Said::new(a, self.function.field().data_type().clone())),
                EmitMode::OnClose => a,
            }
        };
        Ok(match self.kind(spec)? {
            Kind::Count => Box::new(native::Count::default()),
            Kind::Sum(DataType::UInt64) => Box::new(Sum::<UInt64Type>::new(DataType::UInt64, self.shown())),
            Kind::Sum(t @ DataType::Decimal128(_, _)) => Box::new(Sum::<Decimal128Type>::new(t, self.shown())),
            Kind::Sum(t) => Box::new(Sum::<Int64Type>::new(t, self.shown())),
            Kind::Float { average } => Box::new(native::FloatSum::new(average)),
            Kind::Extreme(t, max) => extreme(&t, max)?,
            Kind::Seen(t) => Box::new(seen::Seen::new(&t, calls)?),
            Kind::CountDistinct(t) => Box::new(distinct::CountDistinct::new(t)?),
            Kind::Rows(types) => said(Box::new(rows::KeptRows::new(self.function.clone(), types)?)),
            Kind::Boxed => said(Box::new(boxed::Boxed::new(self.function.clone()))),
        })
    }
}

/// How a call is computed.
pub(super) enum Kind {
    Count,
    Sum(DataType),
    Float { average: bool },
    Extreme(DataType, bool),
    Seen(DataType),
    CountDistinct(DataType),
    Rows(Vec<DataType>),
    Boxed,
}

fn extreme(data_type: &DataType, max: bool) -> Result<Box<dyn Accumulate>> {
    use arrow::array::downcast_primitive;
    macro_rules! make {
        ($t:ty, $dt:expr, $max:expr) => {
            return Ok(Box::new(native::Extreme::<$t>::new($dt.clone(), $max)))
        };
    }
    downcast_primitive! {
        data_type => (make, data_type, max),
        other => Err(Error::internal(format!("min or max over {other} is not primitive"))),
    }
}
