//! `bytes_text(x)`: bytes as text that never fails. What is UTF-8 stands as it is; any other byte is `\x` and two
//! hexadecimal digits.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The function, shared by all expressions.
pub(crate) fn bytes_text() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(BytesText { signature }))
    });
    Arc::clone(&FUNCTION)
}

/// The text of `bytes`.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    text
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BytesText {
    signature: Signature,
}

impl ScalarUDFImpl for BytesText {
    fn name(&self) -> &str {
        "bytes_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let bytes: Vec<ArrayRef> = arrays.iter().map(|a| cast(a, &DataType::Binary)).collect::<Result<_, _>>()?;
        let texts = bytes.first().map(|bytes| bytes.as_binary::<i32>().iter().map(|b| b.map(text_of)));
        let texts: StringArray = texts.into_iter().flatten().collect();
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_text() {
        assert_eq!(text_of("größe".as_bytes()), "größe");
        assert_eq!(text_of(b"a\xff,\xe2\x82b"), "a\\xFF,\\xE2\\x82b");
    }
}
