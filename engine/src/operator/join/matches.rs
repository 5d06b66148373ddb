//! Which rows of the two sides match: they have one key, and the condition is true.

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};

use super::{Condition, Join};
use crate::changes::Changes;
use crate::error::Result;
use crate::expr::evaluate;
use crate::operator::Output;
use crate::state::Handle;
use crate::state::accumulate::true_rows;
use crate::state::arrangement::{Arrangement, Cursor, Keyed, Pairs};

/// About so many bytes are said at once.
const PIECE: usize = 1 << 20;
/// And so many rows.
const MOST: usize = 1 << 14;

/// How many pairs of `probe` with rows of `other` are made at once.
pub(super) fn pairs_at_once(probe: &Keyed, other: &Arrangement) -> usize {
    let width = |bytes: usize, rows: usize| bytes / rows.max(1);
    let bytes = width(probe.bytes(), probe.len()) + width(other.kept_bytes(), other.rows());
    (PIECE / bytes.max(1)).clamp(16, MOST)
}

/// Rows whose matches are looked for.
pub(super) struct Probe<'a> {
    /// Their side.
    pub(super) port: usize,
    pub(super) rows: &'a Keyed,
    /// The rows of the other side that count, where that is not all that it keeps.
    pub(super) among: Option<&'a Arrangement>,
}

/// The next pairs of `probe` that match; `out` takes those aside whose condition fails. Says whether these were the last.
pub(super) fn next_pairs(
    spec: &Join,
    sides: &[Handle<Arrangement>; 2],
    probe: Probe<'_>,
    cursor: &mut Cursor,
    out: Option<&mut Output>,
) -> Result<(Pairs, bool)> {
    let Probe { port, rows: probe, among } = probe;
    let mut pairs_of = |other: &Arrangement| {
        let most = pairs_at_once(probe, other);
        other.pairs(probe, cursor, most)
    };
    let (mut pairs, done) = match among {
        Some(among) => pairs_of(among)?,
        None => sides[1 - port].with(|other| pairs_of(other))?,
    };
    if let Some(condition) = spec.condition.as_ref().filter(|_| !pairs.is_empty()) {
        let rows = read(condition, sides, port, probe, &pairs)?;
        let (mask, failures) = evaluate(&condition.expr, &rows)?;
        let mut keep: Vec<bool> = true_rows(mask.as_boolean()).iter().collect();
        failures.iter().for_each(|(row, _)| keep[row as usize] = false);
        if let Some(out) = out.filter(|_| !failures.is_empty()) {
            let weights = (0..pairs.len()).map(|i| weight(probe, &pairs, i)).collect();
            out.put_aside(Changes::weighted(rows, weights)?, &failures)?;
        }
        pairs.retain(&keep);
    }
    Ok((pairs, done))
}

/// The weight of a pair.
pub(super) fn weight(probe: &Keyed, pairs: &Pairs, at: usize) -> i64 {
    probe.weight(pairs.probe[at] as usize) * pairs.weights[at]
}

/// What a condition reads of pairs.
fn read(
    condition: &Condition,
    sides: &[Handle<Arrangement>; 2],
    port: usize,
    probe: &Keyed,
    pairs: &Pairs,
) -> Result<RecordBatch> {
    let of = |side: usize| -> Vec<usize> {
        condition.columns.iter().filter(|(s, _)| *s == side).map(|(_, column)| *column).collect()
    };
    let mut mine = sides[port].with(|a| a.columns_of(probe, &pairs.probe, &of(port)))?.into_iter();
    let mut theirs = sides[1 - port].with(|a| a.columns_in(pairs, &of(1 - port)))?.into_iter();
    let next = |(side, _): &(usize, usize)| if *side == port { mine.next() } else { theirs.next() };
    let columns = condition.columns.iter().filter_map(next).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
    Ok(RecordBatch::try_new_with_options(condition.schema.clone(), columns, &options)?)
}
