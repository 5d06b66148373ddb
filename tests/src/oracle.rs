//! The standing oracle: the same query by DataFusion in batch, and whether two multisets of rows are one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_plan::collect;
use millstream_engine::changes::Changes;
use millstream_sql::plan::{TableResolver, query_plan, session_state};
use millstream_sql::statement::Query;

use crate::Result;

/// Runs `query` in batch over the tables of `resolver`.
pub async fn batch(query: &Query, resolver: Arc<dyn TableResolver>) -> Result<Vec<RecordBatch>> {
    let state = session_state();
    let plan = query_plan(&state, resolver, &query.query)?;
    let physical = state.create_physical_plan(&plan).await?;
    let schema = physical.schema();
    let mut batches = collect(physical, state.task_ctx()).await?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// Rows with how often each occurs.
pub struct Multiset {
    converter: RowConverter,
    rows: HashMap<OwnedRow, i64>,
    schema: SchemaRef,
}

impl Multiset {
    /// No rows of `schema`.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Multiset { converter: RowConverter::new(fields)?, rows: HashMap::new(), schema })
    }

    /// Applies changes. A row taken back must be the very row that came.
    pub fn add(&mut self, changes: &Changes) -> Result<()> {
        let rows = self.converter.convert_columns(changes.rows().columns())?;
        for i in 0..changes.num_rows() {
            let row = rows.row(i).owned();
            let n = self.rows.entry(row.clone()).or_default();
            *n += changes.weight(i);
            if *n == 0 {
                self.rows.remove(&row);
            }
        }
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> i64 {
        self.rows.values().sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, one occurrence each; an error when one occurs less than not at all.
    pub fn content(&self) -> Result<RecordBatch> {
        let rows = self.rows.iter().flat_map(|(row, n)| std::iter::repeat_n(row.row(), (*n).max(0) as usize));
        let columns = self.converter.convert_rows(rows)?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.len().max(0) as usize));
        let negative = self.rows.iter().filter(|(_, n)| **n < 0).map(|(row, _)| row.row());
        let negative = self.converter.convert_rows(negative)?;
        if negative.first().is_some_and(|c| !c.is_empty()) {
            let rows = RecordBatch::try_new(self.schema.clone(), negative)?;
            let shown: Vec<String> = cells(&rows, &floats(&self.schema))?.into_iter().map(|r| r.to_string()).collect();
            return Err(format!("rows taken back that are not there:\n  {}", shown.join("\n  ")).into());
        }
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// A row for comparison: floats apart from the rest.
struct Cells {
    text: String,
    floats: Vec<Option<f64>>,
}

impl std::fmt::Display for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        for v in &self.floats {
            match v {
                Some(v) => write!(f, " {v:?}")?,
                None => f.write_str(" null")?,
            }
        }
        Ok(())
    }
}

fn cells(batch: &RecordBatch, floats: &[Option<f64>]) -> Result<Vec<Cells>> {
    let options = FormatOptions::default().with_null("null");
    let split = |wanted: bool| batch.columns().iter().zip(floats).filter(move |(_, f)| f.is_some() == wanted);
    let texts = split(false).map(|(c, _)| ArrayFormatter::try_new(c, &options)).collect::<Result<Vec<_>, _>>()?;
    let floats = split(true).map(|(c, _)| cast(c, &DataType::Float64)).collect::<Result<Vec<_>, _>>()?;
    let row = |i: usize| {
        let text: Vec<String> = texts.iter().map(|t| format!("{:?}", t.value(i).to_string())).collect();
        let float = |c: &ArrayRef| c.is_valid(i).then(|| c.as_primitive::<Float64Type>().value(i));
        Cells { text: text.join(" "), floats: floats.iter().map(float).collect() }
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

fn close(a: &Cells, b: &Cells, within: &[f64]) -> bool {
    a.floats.iter().zip(&b.floats).zip(within).all(|((a, b), within)| match (a, b) {
        (Some(a), Some(b)) => {
            let most = (1e-9 * a.abs().max(b.abs()).max(1.0)).max(*within);
            let near = || a.is_finite() && b.is_finite() && (a - b).abs() <= most;
            a == b || (a.is_nan() && b.is_nan()) || near()
        }
        (None, None) => true,
        _ => false,
    })
}

/// Which columns are compared as floats, each with the difference that is none.
fn floats(schema: &Schema) -> Vec<Option<f64>> {
    schema.fields().iter().map(|f| f.data_type().is_floating().then_some(0.0)).collect()
}

/// Errors with the differences when the rows of `expected` are not those of `found`, in any order.
pub fn equal(expected: &[RecordBatch], found: &RecordBatch) -> Result<()> {
    let types =
        |b: &RecordBatch| -> Vec<DataType> { b.schema().fields().iter().map(|f| f.data_type().clone()).collect() };
    for batch in expected {
        if types(batch) != types(found) {
            return Err(format!("types {:?}, in batch {:?}", types(found), types(batch)).into());
        }
    }
    differences(expected, found, &floats(&found.schema()))
}

/// The same, where some columns may be so far apart whatever their types.
pub fn equal_within(expected: &[RecordBatch], found: &RecordBatch, within: &[Option<f64>]) -> Result<()> {
    let floats: Vec<_> = floats(&found.schema()).iter().zip(within).map(|(f, w)| w.or(*f)).collect();
    differences(expected, found, &floats)
}

fn differences(expected: &[RecordBatch], found: &RecordBatch, floats: &[Option<f64>]) -> Result<()> {
    let within: Vec<f64> = floats.iter().flatten().copied().collect();
    let mut open: BTreeMap<String, Vec<Cells>> = BTreeMap::new();
    for batch in expected {
        for row in cells(batch, floats)? {
            open.entry(row.text.clone()).or_default().push(row);
        }
    }
    let mut extra = vec![];
    for row in cells(found, floats)? {
        let same = open.get_mut(&row.text);
        let at = same.as_ref().and_then(|rows| rows.iter().position(|r| close(r, &row, &within)));
        match (same, at) {
            (Some(rows), Some(at)) => {
                rows.swap_remove(at);
            }
            _ => extra.push(row),
        }
    }
    let missing: Vec<&Cells> = open.values().flatten().collect();
    if missing.is_empty() && extra.is_empty() {
        return Ok(());
    }
    let list = |rows: &mut dyn Iterator<Item = String>| rows.take(6).collect::<Vec<_>>().join("\n    ");
    let (m, e) = (list(&mut missing.iter().map(|r| r.to_string())), list(&mut extra.iter().map(|r| r.to_string())));
    Err(format!("{} rows are missing:\n    {m}\n  {} are too many:\n    {e}", missing.len(), extra.len()).into())
}
