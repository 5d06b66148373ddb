//! Functions of arrays while they are planned.
//!
//! The planner asks a function for its type at once, and functions of arrays refuse a decimal beside an array of
//! doubles before [`typing`](super::typing) can make it a double. So they are planned as [`Loose`], which takes it,
//! and become themselves again when they are typed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::floats::{doubled, is_float};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Loose {
    function: Arc<ScalarUDF>,
    /// Not the function's, by which it would be taken for one of DataFusion's.
    name: String,
    signature: Signature,
}

/// A function as it is planned.
pub(in crate::plan) fn planned(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    if !function.name().starts_with("array_") {
        return function;
    }
    let signature = Signature::user_defined(function.signature().volatility);
    let name = format!("loose_{}", function.name());
    Arc::new(ScalarUDF::new_from_impl(Loose { function, name, signature }))
}

/// The function that was planned.
pub(super) fn strict(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.inner().downcast_ref::<Loose>() {
        Some(loose) => Arc::clone(&loose.function),
        None => function,
    }
}

impl ScalarUDFImpl for Loose {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        self.function.schema_name(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let floats = types.iter().any(is_float);
        let one = |t: &DataType| doubled(t).filter(|_| floats).unwrap_or_else(|| t.clone());
        let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("", one(t), true))).collect();
        let fields = fields_with_udf(&fields, self.function.as_ref())?;
        Ok(fields.iter().map(|f| f.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.function.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.function.invoke_with_args(args)
    }
}
