//! `now()` in microseconds. In nanoseconds a comparison with it would take the other side to nanoseconds too, and
//! fail for every time after 2262.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Now {
    signature: Signature,
    aliases: Vec<String>,
    zone: Option<Arc<str>>,
}

impl Now {
    pub(super) fn new(zone: Option<&str>) -> Self {
        let aliases = vec!["current_timestamp".to_owned()];
        Now { signature: Signature::nullary(Volatility::Stable), aliases, zone: zone.map(Arc::from) }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        Some(Now::new(config.execution.time_zone.as_deref()).into())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("now() has a field, not a type")
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, self.zone.clone());
        Ok(Arc::new(Field::new(self.name(), data_type, false)))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = info.query_execution_start_time() else { return Ok(ExprSimplifyResult::Original(args)) };
        let value = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), self.zone.clone());
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(value, None)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("now() has no value here")
    }
}
