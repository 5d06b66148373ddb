//! Functions and clauses that look below nested values without asking whether those are null.
//!
//! What they are given is rid of it first (`millstream_engine::hidden`), which costs nothing where nothing is
//! hidden.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, Projection, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Unnest, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use millstream_engine::hidden::without_hidden;

/// Functions that look into null lists and maps.
pub(super) const ENTERING: [&str; 7] =
    ["array_append", "array_prepend", "array_repeat", "map_extract", "map_keys", "map_values", "map_entries"];

/// `function`, which sees nothing below nulls.
pub(super) fn settled(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Settled { inner: function }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Settled {
    inner: Arc<ScalarUDF>,
}

fn settle(value: ColumnarValue) -> Result<ColumnarValue> {
    match value {
        ColumnarValue::Array(array) if array.data_type().is_nested() => {
            Ok(ColumnarValue::Array(without_hidden(&array)?))
        }
        ColumnarValue::Scalar(scalar) if scalar.data_type().is_nested() => {
            let array = without_hidden(&scalar.to_array()?)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
        }
        other => Ok(other),
    }
}

impl ScalarUDFImpl for Settled {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.inner().simplify(args, context)
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.inner().placement(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args = args.args.into_iter().map(settle).collect::<Result<_>>()?;
        self.inner.inner().invoke_with_args(args)
    }
}

/// The value as it is, with nothing below its nulls.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WithoutHidden {
    signature: Signature,
}

impl ScalarUDFImpl for WithoutHidden {
    fn name(&self) -> &str {
        "without_hidden"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(field.clone()),
            _ => datafusion::common::internal_err!("without_hidden takes one value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match <[ColumnarValue; 1]>::try_from(args.args) {
            Ok([value]) => settle(value),
            Err(_) => datafusion::common::internal_err!("without_hidden takes one value"),
        }
    }
}

/// Settles what `unnest` takes apart: it makes the fields of a struct columns without its nulls.
#[derive(Debug)]
pub(super) struct SettleUnnested;

impl AnalyzerRule for SettleUnnested {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewrite = |plan| match plan {
            LogicalPlan::Unnest(unnest) if !unnest.struct_type_columns.is_empty() => {
                Ok(Transformed::yes(LogicalPlan::Unnest(settle_input(unnest)?)))
            }
            other => Ok(Transformed::no(other)),
        };
        Ok(plan.transform_up_with_subqueries(rewrite)?.data)
    }

    fn name(&self) -> &str {
        "settle_unnested"
    }
}

fn settle_input(unnest: Unnest) -> Result<Unnest> {
    static SETTLE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        Arc::new(ScalarUDF::new_from_impl(WithoutHidden { signature: Signature::any(1, Volatility::Immutable) }))
    });
    let schema = unnest.input.schema().clone();
    let exprs = schema.iter().map(|(qualifier, field)| {
        let column = Expr::Column((qualifier, field).into());
        match field.data_type().is_nested() {
            true => Expr::ScalarFunction(ScalarFunction::new_udf(SETTLE.clone(), vec![column]))
                .alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    });
    let input = Projection::try_new_with_schema(exprs.collect(), unnest.input.clone(), schema.clone())?;
    Ok(Unnest { input: Arc::new(LogicalPlan::Projection(input)), ..unnest })
}
