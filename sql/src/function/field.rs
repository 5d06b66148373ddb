//! `get_field`: a field of a struct, or a value of a map, by its name.
//!
//! DataFusion's takes the field's column as it is: where the struct is null it may have values all the same
//! (required fields of Parquet, `CASE WHEN … THEN s END`, `nullif(s, …)`), and a null map may have entries. Here
//! the field is null wherever what it is taken from is.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue, TableReference};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::functions::core::named_struct::NamedStructFunc;
use datafusion::functions::core::r#struct::StructFunc;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, GetFieldAccess, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, lit,
};
use datafusion::prelude::Column;
use millstream_engine::hidden::below;

/// The function.
pub(super) fn get_field() -> Arc<ScalarUDF> {
    static GET_FIELD: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(GetField { inner: GetFieldFunc::new() })));
    GET_FIELD.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct GetField {
    /// Names, types and errors are DataFusion's.
    inner: GetFieldFunc,
}

impl GetField {
    /// One step of the path.
    fn step(&self, base: &ColumnarValue, key: &ColumnarValue, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let parent = base.to_array(1)?;
        let key = key_of(parent.data_type(), key)?;
        let step = ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(parent.clone()), key],
            arg_fields: vec![],
            number_rows: parent.len(),
            return_field: args.return_field.clone(),
            config_options: args.config_options.clone(),
        };
        match self.inner.invoke_with_args(step)? {
            ColumnarValue::Array(child) => Ok(ColumnarValue::Array(masked(&parent, &child)?)),
            scalar => Ok(scalar),
        }
    }
}

/// `key` in the type that the keys of a map have.
fn key_of(parent: &DataType, key: &ColumnarValue) -> Result<ColumnarValue> {
    match (parent, key) {
        (DataType::Map(entries, _), ColumnarValue::Scalar(key)) => match entries.data_type() {
            DataType::Struct(pair) if !pair.is_empty() => Ok(ColumnarValue::Scalar(key.cast_to(pair[0].data_type())?)),
            _ => Ok(ColumnarValue::Scalar(key.clone())),
        },
        (_, key) => Ok(key.clone()),
    }
}

/// `child` with the nulls of `parent`. Both may be dictionaries of the same keys.
fn masked(parent: &ArrayRef, child: &ArrayRef) -> Result<ArrayRef> {
    if let (DataType::Dictionary(_, _), DataType::Dictionary(_, _)) = (parent.data_type(), child.data_type()) {
        let (parent, child) = (parent.as_any_dictionary(), child.as_any_dictionary());
        return Ok(child.with_values(below(parent.values(), child.values())?));
    }
    Ok(below(parent, child)?)
}

impl ScalarUDFImpl for GetField {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((base, path)) = args.args.split_first() else { return self.inner.invoke_with_args(args) };
        let mut current = base.clone();
        for key in path {
            if current.data_type().is_null() {
                return Ok(ColumnarValue::Scalar(ScalarValue::Null));
            }
            current = self.step(&current, key, &args)?;
        }
        Ok(current)
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some((mut base, path)) = args.split_first() else { return Ok(ExprSimplifyResult::Original(args)) };
        // `s['a']['b']` is one call with a path of two.
        let mut paths = vec![path];
        while let Expr::ScalarFunction(ScalarFunction { func, args }) = base
            && func.inner().is::<GetField>()
            && let Some((inner, path)) = args.split_first()
        {
            paths.push(path);
            base = inner;
        }
        let path: Vec<Expr> = paths.iter().rev().flat_map(|p| p.iter().cloned()).collect();
        if let Some((first, rest)) = path.split_first()
            && let Some(value) = constructed(base, first)
        {
            let rest = rest.to_vec();
            let expr = if rest.is_empty() { value } else { call([vec![value], rest].concat()) };
            return Ok(ExprSimplifyResult::Simplified(expr));
        }
        if paths.len() == 1 {
            return Ok(ExprSimplifyResult::Original(args));
        }
        Ok(ExprSimplifyResult::Simplified(call([vec![base.clone()], path].concat())))
    }
}

fn call(args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(get_field(), args))
}

/// What field `name` of `base` was made of, where `base` is a call that makes a struct with literal names.
fn constructed(base: &Expr, name: &Expr) -> Option<Expr> {
    let text = |e: &Expr| match e {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    let name = text(name)?;
    let Expr::ScalarFunction(ScalarFunction { func, args }) = base else { return None };
    if func.inner().is::<NamedStructFunc>() {
        let names: Option<Vec<String>> = args.iter().step_by(2).map(text).collect();
        let at = names?.iter().position(|n| *n == name)?;
        return args.get(2 * at + 1).cloned();
    }
    if func.inner().is::<StructFunc>() {
        return (0..args.len()).find(|i| format!("c{i}") == name).and_then(|i| args.get(i)).cloned();
    }
    None
}

/// Plans accesses with our function.
#[derive(Debug)]
pub(super) struct FieldAccess;

impl ExprPlanner for FieldAccess {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        use datafusion::logical_expr::ExprSchemable;
        let RawFieldAccessExpr { expr, field_access } = access;
        match field_access {
            GetFieldAccess::NamedStructField { name } => Ok(PlannerResult::Planned(call(vec![expr, lit(name)]))),
            GetFieldAccess::ListIndex { key }
                if !matches!(expr, Expr::AggregateFunction(_))
                    && matches!(expr.get_type(schema)?, DataType::Map(_, _)) =>
            {
                Ok(PlannerResult::Planned(call(vec![expr, *key])))
            }
            field_access => Ok(PlannerResult::Original(RawFieldAccessExpr { expr, field_access })),
        }
    }

    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let column = Expr::Column(Column::from((qualifier, field)));
        let access = |base, name: &String| call(vec![base, lit(name.clone())]);
        Ok(PlannerResult::Planned(nested_names.iter().fold(column, access)))
    }
}
