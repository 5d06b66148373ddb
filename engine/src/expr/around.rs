//! Expressions that stand around another one and do something with its values.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion_common::{DataFusionError, Result as DfResult};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

/// What is done with the values of an expression, which keep their type.
pub(super) trait Rule: fmt::Debug + Send + Sync + 'static {
    /// What is written before the expression, if anything.
    const SIGN: &'static str = "";

    /// Whether a value can be NULL, where that of the expression can be or not.
    fn nullable(inner: bool) -> bool {
        inner
    }

    /// The values that come of those of the expression.
    fn values(inner: ColumnarValue) -> DfResult<ColumnarValue>;
}

/// An expression under a rule.
#[derive(Debug)]
pub(super) struct Around<R>(pub(super) Arc<dyn PhysicalExpr>, PhantomData<R>);

impl<R: Rule> Around<R> {
    pub(super) fn around(inner: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        Arc::new(Around::<R>(inner, PhantomData))
    }
}

impl<R> PartialEq for Around<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl<R> Eq for Around<R> {}

impl<R> Hash for Around<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<R: Rule> fmt::Display for Around<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match R::SIGN {
            "" => self.0.fmt(f),
            sign => write!(f, "({sign} {})", self.0),
        }
    }
}

impl<R: Rule> PhysicalExpr for Around<R> {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.0.nullable(schema).map(R::nullable)
    }

    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        let field = self.0.return_field(schema)?;
        let nullable = R::nullable(field.is_nullable());
        Ok(if nullable == field.is_nullable() {
            field
        } else {
            Arc::new(field.as_ref().clone().with_nullable(nullable))
        })
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        R::values(self.0.evaluate(batch)?)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let child =
            children.pop().ok_or_else(|| DataFusionError::Internal("no expression to stand around".to_owned()))?;
        Ok(Around::<R>::around(child))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !R::SIGN.is_empty() {
            write!(f, "{} ", R::SIGN)?;
        }
        self.0.fmt_sql(f)
    }
}
