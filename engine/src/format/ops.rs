//! Records that say their operation in `_op`: a changelog as Millstream writes it.

use std::ops::Range;

use crate::error::Result;
use crate::format::form::no_op;
use crate::format::spans::{Kind, Span};
use crate::format::tokenizer::{Found, Tokenizer};
use crate::format::values::Escapes;

/// Takes records apart as `T` does, whose last column is the operation.
pub(crate) struct Ops<T> {
    inner: T,
    escapes: Escapes,
    row: Vec<Span>,
    /// The last record was an old row, behind which the new one stands.
    is_half: bool,
}

impl<T: Tokenizer> Ops<T> {
    /// Of records that `inner` takes apart into `width` columns and the operation.
    pub(crate) fn new(inner: T, escapes: Escapes, width: usize) -> Self {
        Ops { inner, escapes, row: vec![Span::NULL; width + 1], is_half: false }
    }

    fn weight(&mut self, block: &[u8], op: Span) -> Result<i64, String> {
        let bytes = block.get(op.start as usize..op.end as usize).unwrap_or_default();
        let mut plain = vec![];
        let text = match op.kind {
            Kind::Null => return Err(no_op(None)),
            Kind::Escaped if self.escapes.resolve(bytes, &mut plain).is_some() => &plain,
            _ => bytes,
        };
        self.is_half = text == b"-U";
        match text {
            b"+I" | b"+U" => Ok(1),
            b"-U" | b"-D" => Ok(-1),
            other => Err(no_op(Some(other))),
        }
    }
}

impl<T: Tokenizer> Tokenizer for Ops<T> {
    fn begin(&mut self, block: &[u8]) -> Result<usize> {
        self.inner.begin(block)
    }

    fn record_end(&self, block: &[u8], start: usize) -> usize {
        self.inner.record_end(block, start)
    }

    fn parts(&self, block: &[u8], record: Range<usize>, parts: &mut Vec<Range<usize>>) -> Result<(), String> {
        self.inner.parts(block, record, parts)
    }

    fn row(&mut self, block: &[u8], start: usize, end: usize, row: &mut [Span]) -> Result<bool, String> {
        self.inner.row(block, start, end, row)
    }

    fn rows(&mut self, block: &[u8], start: usize, end: usize, found: &mut Found) -> Result<(), String> {
        let mut row = std::mem::take(&mut self.row);
        row.fill(Span::NULL);
        self.is_half = false;
        let read = self.inner.row(block, start, end, &mut row);
        let said = match (read, row.split_last()) {
            (Ok(true), Some((op, columns))) => {
                self.weight(block, *op).map(|weight| found.push_weighted(columns, weight))
            }
            (read, _) => read.map(drop),
        };
        self.row = row;
        said
    }

    fn is_half(&self) -> bool {
        self.is_half
    }

    fn forget(&mut self) {
        self.is_half = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use crate::format::form::Form;
    use crate::format::options::{CsvOptions, JsonOptions};
    use crate::format::{Decoded, LineDecoder, Place, csv, json};

    fn schema() -> Schema {
        Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8View, true)])
    }

    fn decoded(mut decoder: Box<dyn LineDecoder>, text: &str) -> Decoded {
        let decoded = decoder.decode(text.as_bytes(), Place { position: 0, line: Some(1) }).expect("decodes");
        assert_eq!(decoded.bytes, text.len());
        decoded
    }

    fn shown(decoded: &Decoded) -> Vec<(i64, i64)> {
        let weights = decoded.weights.as_ref().expect("of a changelog");
        let ids = decoded.rows.column(0).as_primitive::<Int64Type>();
        weights.iter().copied().zip(ids.values().iter().copied()).collect()
    }

    #[test]
    fn rows_of_json_come_and_go() {
        let options = JsonOptions { form: Form::Ops, ..JsonOptions::default() };
        let decoder = json::decoder(Arc::new(schema()), &options, &[], "s".into());
        let text = r#"{"_op":"+I","id":1,"v":"a"}
{"id":1,"_op":"-U","v":"a"}
{"_op":"\u002bU","id":1,"v":"b"}

{"_op":"+X","id":2}
{"id":3,"v":"c"}
{"_op":"-D","id":"x"}
{"_op":null,"id":4}
{"_op":"-D","id":1}
"#;
        let decoded = decoded(decoder, text);
        assert_eq!(shown(&decoded), [(1, 1), (-1, 1), (1, 1), (-1, 1)]);
        let dead: Vec<_> = decoded.dead.iter().map(|d| (d.line.expect("known"), d.reason.as_str())).collect();
        let expected = [
            (5, "its _op is \"+X\", not one of +I, -U, +U and -D"),
            (6, "it has no _op: +I, -U, +U or -D"),
            (7, "column \"id\": \"x\" is not a BIGINT"),
            (8, "it has no _op: +I, -U, +U or -D"),
        ];
        assert_eq!(dead, expected);
    }

    #[test]
    fn an_old_row_waits_for_the_new_one() {
        let options = JsonOptions { form: Form::Ops, ..JsonOptions::default() };
        let mut decoder = json::decoder(Arc::new(schema()), &options, &[], "s".into());
        let [first, half] = ["{\"_op\":\"-D\",\"id\":1}\n", "{\"_op\":\"-U\",\"id\":2}\n"];
        let at = Place { position: 0, line: Some(1) };
        let mut taken = |text: &str| {
            let decoded = decoder.decode(text.as_bytes(), at).expect("decodes");
            (decoded.bytes, decoded.lines, decoded.is_half, decoded.rows.num_rows())
        };
        assert_eq!(taken(&format!("{first}{half}")), (first.len(), 1, true, 1));
        // Where it stands alone there is nothing to wait for.
        assert_eq!(taken(half), (half.len(), 1, true, 1));
        assert_eq!(taken(&format!("{half}{first}")), (first.len() + half.len(), 2, false, 2));
        // What stands between is told once.
        assert_eq!(taken(&format!("{first}{half}no json\n")).0, first.len() + half.len() + 8);
    }

    #[test]
    fn of_csv_the_operation_is_a_column_by_its_name_or_the_first() {
        let named = CsvOptions { form: Form::Ops, ..CsvOptions::default() };
        let bare = CsvOptions { header: false, ..named.clone() };
        let texts = [(&named, "id,_op,v\n1,+I,a\n2,,b\n1,\"-D\",a\n"), (&bare, "+I,1,a\nI,2,b\n-D,1,a\n")];
        for (options, text) in texts {
            for projection in [vec![0, 1], vec![0]] {
                let decoder = csv::decoder(&schema(), &projection, options, "s".into(), None).expect("columns");
                let decoded = decoded(decoder, text);
                assert_eq!(shown(&decoded), [(1, 1), (-1, 1)], "{text}");
                assert_eq!((decoded.dead.len(), decoded.rows.num_columns()), (1, projection.len()));
            }
        }
    }
}
