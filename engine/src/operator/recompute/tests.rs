//! A query run anew, as a script.

use arrow::array::{AsArray, Int64Array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::StreamExt;

use super::*;
use crate::testing::Step::{At, Mark, Recover};
use crate::testing::check;

/// The sum of each value of the first input with each of the second.
#[derive(Debug)]
struct Sums(SchemaRef);

#[async_trait]
impl Batch for Sums {
    fn describe(&self) -> String {
        "sums".to_owned()
    }

    async fn run(&self, inputs: Vec<RecordBatch>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let values = |input: &RecordBatch| input.column(0).as_primitive::<Int64Type>().values().to_vec();
        let second = values(&inputs[1]);
        let pieces = values(&inputs[0]).into_iter().map(|a| {
            let sums: Int64Array = second.iter().map(|b| a + b).collect();
            concat(&[&sums]).expect("one array")
        });
        let schema = self.0.clone();
        let pieces: Vec<_> = pieces.map(|sums| Ok(RecordBatch::try_new(schema.clone(), vec![sums])?)).collect();
        Ok(futures::stream::iter(pieces).boxed())
    }
}

#[test]
fn what_differs_from_the_last_answer_is_said() {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
    let batch = Arc::new(Sums(schema.clone()));
    let spec = Recompute { inputs: vec![schema.clone(), schema.clone()], batch, schema: schema.clone() };
    let script = [
        At(0, "+1 1; +1 2"),
        Mark(0, ""),
        At(1, "+2 10; +1 20"),
        Mark(0, "+1 11; +1 11; +1 21; +1 12; +1 12; +1 22"),
        Recover,
        Mark(0, ""),
        At(1, "-1 10"),
        Mark(0, "-1 11; -1 12"),
        At(0, "-1 1; +1 11"),
        Mark(0, "-1 11; +1 31"),
    ];
    check(Arc::new(spec), &schema, &script).expect("the sums that there are");
}
