//! The content of a changing result, kept from its changes and drawn in place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use futures::StreamExt;
use millstream_engine::time::EventTime;
use millstream_sql::session::{ChangeFeed, FeedEnd};
use millstream_sql::{ErrorKind, Result};

use super::keyboard;
use crate::lex::{self, Kind, Token};
use crate::output::{Expanded, Table, cannot_write, render};
use crate::report::{self, grouped};
use crate::run::seconds;
use crate::signal;
use crate::terminal::{Live, Screen, paint, shorten};

/// How often the screen changes at most.
const FRAME: Duration = Duration::from_millis(100);
/// Of rows that are only ever added, so many are kept: the first in order, or the last ones.
const TAIL: usize = 1_000;

/// The rows that a result consists of now.
pub(crate) struct Content {
    schema: SchemaRef,
    updating: bool,
    converter: RowConverter,
    key: Option<(RowConverter, Vec<usize>)>,
    order: Vec<(usize, SortOptions)>,
    limit: usize,
    rows: BTreeMap<OwnedRow, Kept>,
    tail: VecDeque<OwnedRow>,
    count: u64,
}

struct Kept {
    row: OwnedRow,
    times: i64,
}

impl Content {
    /// Nothing yet; `sql` is the query as it was typed, whose ORDER BY and LIMIT decide what is shown.
    pub(crate) fn new(feed: &ChangeFeed, sql: &str) -> Result<Self> {
        let fields = feed.schema.fields();
        let schema = if feed.updating {
            Schema::new(fields.get(1..).unwrap_or_default().to_vec())
        } else {
            Schema::new(fields.clone())
        };
        let converter = |columns: &mut dyn Iterator<Item = usize>| {
            let fields = columns.filter_map(|c| schema.fields().get(c)).map(|f| SortField::new(f.data_type().clone()));
            RowConverter::new(fields.collect()).map_err(cannot_keep)
        };
        let key = match feed.key.as_ref().filter(|key| !key.is_empty()) {
            Some(key) => Some((converter(&mut key.iter().copied())?, key.clone())),
            None => None,
        };
        Ok(Content {
            converter: converter(&mut (0..schema.fields().len()))?,
            key,
            order: order_by(sql, &schema),
            limit: unordered(sql).1.unwrap_or(usize::MAX),
            updating: feed.updating,
            schema: schema.into(),
            rows: BTreeMap::new(),
            tail: VecDeque::new(),
            count: 0,
        })
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes changes over.
    pub(crate) fn apply(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = if self.updating { batch.columns().get(1..).unwrap_or_default() } else { batch.columns() };
        let rows = self.converter.convert_columns(columns).map_err(cannot_keep)?;
        if !self.updating {
            self.count += batch.num_rows() as u64;
            if !self.order.is_empty() {
                return self.add_in_order(columns);
            }
            let first = batch.num_rows().saturating_sub(TAIL);
            for row in rows.iter().skip(first) {
                self.tail.push_back(row.owned());
            }
            let excess = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..excess);
            return Ok(());
        }
        let keys = match &self.key {
            Some((converter, key)) => {
                let columns: Vec<ArrayRef> = key.iter().filter_map(|k| columns.get(*k).cloned()).collect();
                Some(converter.convert_columns(&columns).map_err(cannot_keep)?)
            }
            None => None,
        };
        let ops = cast(batch.column(0), &DataType::Utf8).map_err(cannot_keep)?;
        let ops = ops.as_string::<i32>();
        for (i, row) in rows.iter().enumerate() {
            let row = row.owned();
            match &keys {
                Some(keys) => self.replace(keys.row(i).owned(), row, ops.value(i)),
                None => self.add(row, if ops.value(i).starts_with('-') { -1 } else { 1 }),
            }
        }
        Ok(())
    }

    /// Of all rows so far keeps the first in order.
    fn add_in_order(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let kept = self.batch(self.tail.iter())?;
        let fields =
            kept.schema().fields().iter().zip(columns).map(|(f, c)| cast(c, f.data_type())).collect::<Vec<_>>();
        let fields = fields.into_iter().collect::<std::result::Result<Vec<_>, _>>().map_err(cannot_keep)?;
        let added = RecordBatch::try_new(kept.schema(), fields).map_err(cannot_keep)?;
        let all = concat_batches(&kept.schema(), [&kept, &added]).map_err(cannot_keep)?;
        let rows = self.converter.convert_columns(self.sorted(&all, TAIL)?.columns()).map_err(cannot_keep)?;
        self.tail = rows.iter().map(|row| row.owned()).collect();
        Ok(())
    }

    /// With a key there is one row for it, the last one that came.
    fn replace(&mut self, key: OwnedRow, row: OwnedRow, op: &str) {
        match op {
            "-D" => {
                self.rows.remove(&key);
            }
            // the old half of an update must not take away a new row that came before it
            "-U" => {
                if self.rows.get(&key).is_some_and(|kept| kept.row == row) {
                    self.rows.remove(&key);
                }
            }
            _ => {
                self.rows.insert(key, Kept { row, times: 1 });
            }
        }
        self.count = self.rows.len() as u64;
    }

    /// Without a key, equal rows are counted.
    fn add(&mut self, row: OwnedRow, times: i64) {
        let kept = self.rows.entry(row.clone()).or_insert_with(|| Kept { row: row.clone(), times: 0 });
        kept.times += times;
        if kept.times == 0 {
            self.rows.remove(&row);
        }
        self.count = self.count.saturating_add_signed(times);
    }

    /// The first `limit` rows in order; of rows that are only added and have no order, the last ones.
    pub(crate) fn top(&self, limit: usize) -> Result<RecordBatch> {
        let limit = limit.min(self.limit);
        let wanted = if self.order.is_empty() { limit } else { usize::MAX };
        let batch = if self.updating {
            let rows = self
                .rows
                .values()
                .flat_map(|kept| std::iter::repeat_n(&kept.row, usize::try_from(kept.times).unwrap_or(0)));
            self.batch(rows.take(wanted))
        } else {
            let skip = self.tail.len().saturating_sub(wanted);
            self.batch(self.tail.iter().skip(skip))
        }?;
        if self.order.is_empty() || batch.num_rows() == 0 { Ok(batch) } else { self.sorted(&batch, limit) }
    }

    fn batch<'a>(&self, rows: impl Iterator<Item = &'a OwnedRow>) -> Result<RecordBatch> {
        let columns = self.converter.convert_rows(rows.map(OwnedRow::row)).map_err(cannot_keep)?;
        // dictionaries come back as their values
        let fields = self.schema.fields().iter().zip(&columns);
        let fields: Vec<_> = fields.map(|(f, c)| f.as_ref().clone().with_data_type(c.data_type().clone())).collect();
        RecordBatch::try_new(Schema::new(fields).into(), columns).map_err(cannot_keep)
    }

    fn sorted(&self, batch: &RecordBatch, limit: usize) -> Result<RecordBatch> {
        let by = self
            .order
            .iter()
            .map(|(column, options)| SortColumn { values: batch.column(*column).clone(), options: Some(*options) });
        let sorted = lexsort_to_indices(&by.collect::<Vec<_>>(), Some(limit)).map_err(cannot_keep)?;
        take_record_batch(batch, &sorted).map_err(cannot_keep)
    }

    /// How many rows there are to show.
    fn wanted(&self) -> u64 {
        self.count.min(self.limit as u64)
    }
}

fn cannot_keep(e: arrow::error::ArrowError) -> millstream_sql::Error {
    report::fail(ErrorKind::Unsupported, format!("cannot show the result in place: {e}"))
}

/// The words outside of parentheses.
fn outer(sql: &str) -> Vec<Token<'_>> {
    let mut depth = 0;
    let outside = |t: &Token<'_>| {
        match t.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        t.counts() && depth == 0
    };
    lex::tokens(sql).into_iter().filter(outside).collect()
}

/// Where the last ORDER BY outside of parentheses begins.
fn order_at(tokens: &[Token<'_>]) -> Option<usize> {
    tokens.windows(2).rposition(|pair| matches!(pair, [order, by] if order.is("ORDER") && by.is("BY")))
}

fn ends_order(t: &Token<'_>) -> bool {
    ["LIMIT", "OFFSET", "FETCH", "EMIT"].iter().any(|word| t.is(word)) || t.text == ";"
}

/// The columns of the last ORDER BY outside of parentheses, as far as they are plain columns of the result.
fn order_by(sql: &str, schema: &Schema) -> Vec<(usize, SortOptions)> {
    let tokens = outer(sql);
    let Some(at) = order_at(&tokens) else { return Vec::new() };
    let clause: Vec<Token<'_>> = tokens.into_iter().skip(at + 2).take_while(|t| !ends_order(t)).collect();
    // what follows an expression has less weight than it, so it must not decide alone
    clause.split(|t| t.text == ",").map_while(|item| order_item(item, schema)).collect()
}

/// `sql` without its ORDER BY and LIMIT, which cannot run continuously and are applied to what is shown; and the
/// LIMIT. Where they are more than columns and a number, `sql` stays as it is.
pub(crate) fn unordered(sql: &str) -> (String, Option<usize>) {
    let tokens = outer(sql);
    let whole = (sql.to_owned(), None);
    let limit_at = tokens.iter().rposition(|t| t.is("LIMIT"));
    let Some(first) = order_at(&tokens).or(limit_at) else { return whole };
    let is_plain = |t: &&Token<'_>| matches!(t.kind, Kind::Word | Kind::Name | Kind::Number) || t.text == ",";
    let by = tokens.iter().skip(first).take_while(|t| !ends_order(t));
    if !by.clone().all(|t| is_plain(&t)) {
        return whole;
    }
    let mut rest = tokens.iter().skip(first + by.count()).peekable();
    let mut limit = None;
    if rest.next_if(|t| t.is("LIMIT")).is_some() {
        limit = rest.next().and_then(|t| t.text.parse().ok());
        if limit.is_none() {
            return whole;
        }
    }
    let tail = match rest.next() {
        None => "",
        Some(t) if t.is("EMIT") => sql.get(t.start..).unwrap_or_default(),
        Some(_) => return whole,
    };
    let head = tokens.get(first).and_then(|t| sql.get(..t.start)).unwrap_or(sql);
    (format!("{head}{tail}").trim_end().to_owned(), limit)
}

fn order_item(item: &[Token<'_>], schema: &Schema) -> Option<(usize, SortOptions)> {
    let (column, rest) = item.split_first()?;
    let index = match column.kind {
        Kind::Number => column.text.parse::<usize>().ok()?.checked_sub(1).filter(|i| *i < schema.fields().len())?,
        _ => schema.index_of(&column.name()?).ok()?,
    };
    let mut options = SortOptions::default();
    let mut placed = false;
    for token in rest {
        match token.text.to_ascii_uppercase().as_str() {
            "ASC" | "NULLS" => {}
            "DESC" => options.descending = true,
            "FIRST" => (options.nulls_first, placed) = (true, true),
            "LAST" => (options.nulls_first, placed) = (false, true),
            _ => return None,
        }
    }
    if !placed {
        // as PostgreSQL: NULL counts as the largest value
        options.nulls_first = options.descending;
    }
    Some((index, options))
}

/// Shows the content of `feed` in place until Ctrl-C or until it ends; then it stays on the screen.
pub(crate) async fn follow(mut feed: ChangeFeed, sql: &str, expanded: Expanded) -> Result<()> {
    let mut content = Content::new(&feed, sql)?;
    let (start, mut out, mut live) = (Instant::now(), io::stdout(), Live::default());
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut interrupt = std::pin::pin!(signal::interrupted());
    let (mut epoch, mut watermark, mut changes, mut stale) = (0, EventTime::MIN, 0_u64, true);
    loop {
        tokio::select! {
            next = feed.epochs.next() => {
                let Some(next) = next else { break };
                let next = next?;
                for batch in &next.batches {
                    changes += batch.num_rows() as u64;
                    content.apply(batch)?;
                }
                if let Some(FeedEnd::Epoch { epoch: ended, watermark: reached, .. }) = next.end {
                    (epoch, watermark) = (ended.unwrap_or(epoch), reached);
                }
                stale = true;
            }
            _ = frames.tick() => if std::mem::take(&mut stale) {
                let title = format!("{}; Ctrl-C ends", title(&content, epoch, watermark));
                live.draw(&picture(&content, &title, Screen::stdout(), expanded)?, &mut out).map_err(cannot_write)?;
            },
            () = &mut interrupt => {
                keyboard::drop_keys();
                break;
            }
        }
    }
    let title = title(&content, epoch, watermark);
    live.draw(&picture(&content, &title, Screen::stdout(), expanded)?, &mut out).map_err(cannot_write)?;
    live.keep();
    report::say(format_args!("({} changes, {})", grouped(changes), seconds(start.elapsed())));
    Ok(())
}

/// How many rows there are, and as of when.
fn title(content: &Content, epoch: u64, watermark: EventTime) -> String {
    let mut title = format!("{}, epoch {epoch}", report::rows(content.count()));
    if watermark != EventTime::MIN {
        title += &format!(", watermark {watermark}");
    }
    title
}

/// A title and as many rows as the screen has lines for.
fn picture(content: &Content, title: &str, screen: Screen, expanded: Expanded) -> Result<String> {
    let room = screen.height.saturating_sub(6).max(1);
    let batch = content.top(room)?;
    let mut table = Table::of(&batch.schema());
    table.push(&batch, 0, batch.num_rows())?;
    let width = screen.width.unwrap_or(80);
    let mut text = format!("{}\n", paint(&shorten(title, width), "2", screen.colour));
    // rows of several lines may be more than there is room for
    for line in render(&table, screen, expanded).lines().take(screen.height.saturating_sub(3)) {
        text += line;
        text.push('\n');
    }
    if content.wanted() > batch.num_rows() as u64 {
        let more = content.wanted() - batch.num_rows() as u64;
        text += &paint(&format!(" … {} more\n", grouped(more)), "2", screen.colour);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type};

    use super::*;

    fn feed(updating: bool, key: Option<Vec<usize>>) -> ChangeFeed {
        let mut fields = vec![Field::new("name", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
        if updating {
            fields.insert(0, Field::new("_op", DataType::Utf8, false));
        }
        ChangeFeed {
            schema: Arc::new(Schema::new(fields)),
            updating,
            key,
            event_time: None,
            incarnation: None,
            alive: None,
            epochs: futures::stream::empty().boxed(),
        }
    }

    fn apply(content: &mut Content, feed: &ChangeFeed, rows: &[(&str, &str, i64)]) {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(rows.iter().map(|r| r.1).collect::<Vec<_>>())),
            Arc::new(Int64Array::from(rows.iter().map(|r| r.2).collect::<Vec<_>>())),
        ];
        if feed.updating {
            columns.insert(0, Arc::new(StringArray::from(rows.iter().map(|r| r.0).collect::<Vec<_>>())));
        }
        content.apply(&RecordBatch::try_new(feed.schema.clone(), columns).unwrap()).unwrap();
    }

    fn numbers(content: &Content, limit: usize) -> Vec<i64> {
        content.top(limit).unwrap().column(1).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn a_key_has_one_row() {
        let feed = feed(true, Some(vec![0]));
        let mut content = Content::new(&feed, "SELECT 1").unwrap();
        apply(&mut content, &feed, &[("+I", "a", 1), ("+I", "b", 2), ("-U", "a", 1), ("+U", "a", 3)]);
        assert_eq!(numbers(&content, 9), [3, 2]);
        // an upsert without its old half, and the halves the other way round
        apply(&mut content, &feed, &[("+U", "b", 4), ("+U", "a", 5), ("-U", "a", 3)]);
        assert_eq!(numbers(&content, 9), [5, 4]);
        apply(&mut content, &feed, &[("-D", "a", 5)]);
        assert_eq!((numbers(&content, 9), content.count()), (vec![4], 1));
    }

    #[test]
    fn without_a_key_equal_rows_are_counted() {
        let feed = feed(true, None);
        let mut content = Content::new(&feed, "").unwrap();
        apply(&mut content, &feed, &[("+I", "a", 1), ("+I", "a", 1), ("+I", "b", 2), ("-D", "b", 2)]);
        assert_eq!((numbers(&content, 9), content.count()), (vec![1, 1], 2));
    }

    #[test]
    fn order_by_decides_the_order() {
        let feed = feed(true, Some(vec![0]));
        let sql = "SELECT name, count(*) OVER (ORDER BY name) AS n FROM t ORDER BY n DESC, 1 LIMIT 2 EMIT CHANGES;";
        let mut content = Content::new(&feed, sql).unwrap();
        apply(&mut content, &feed, &[("+I", "a", 1), ("+I", "b", 3), ("+I", "c", 2), ("+I", "d", 3)]);
        assert_eq!((numbers(&content, 3), content.wanted()), (vec![3, 3], 2));
        assert_eq!(order_by("SELECT 1 ORDER BY n + 1", &content.schema), []);
    }

    #[test]
    fn rows_that_are_only_added_show_the_last() {
        let feed = feed(false, None);
        let mut content = Content::new(&feed, "").unwrap();
        let rows: Vec<_> = (0..2_500).map(|i| ("", "a", i)).collect();
        apply(&mut content, &feed, &rows);
        assert_eq!((numbers(&content, 2), content.count()), (vec![2_498, 2_499], 2_500));
    }

    #[test]
    fn rows_that_are_only_added_show_the_first_in_order() {
        let feed = feed(false, None);
        let mut content = Content::new(&feed, "SELECT * FROM t ORDER BY n DESC").unwrap();
        for from in [3_000, 0] {
            let rows: Vec<_> = (from..from + 1_500).map(|i| ("", "a", i)).collect();
            apply(&mut content, &feed, &rows);
        }
        assert_eq!((numbers(&content, 2), content.count()), (vec![4_499, 4_498], 3_000));
    }

    #[test]
    fn order_and_limit_are_applied_here() {
        for (sql, query, limit) in [
            ("SELECT a FROM t ORDER BY a DESC, 2 LIMIT 5", "SELECT a FROM t", Some(5)),
            ("SELECT a FROM t LIMIT 5", "SELECT a FROM t", Some(5)),
            ("SELECT a FROM t ORDER BY a EMIT CHANGES", "SELECT a FROM t EMIT CHANGES", None),
            ("SELECT a FROM (SELECT a FROM t LIMIT 2)", "SELECT a FROM (SELECT a FROM t LIMIT 2)", None),
            ("SELECT a FROM t ORDER BY a + 1", "SELECT a FROM t ORDER BY a + 1", None),
            ("SELECT a FROM t LIMIT 5 OFFSET 2", "SELECT a FROM t LIMIT 5 OFFSET 2", None),
        ] {
            assert_eq!(unordered(sql), (query.to_owned(), limit), "{sql}");
        }
    }

    #[test]
    fn a_picture_fits_the_screen() {
        let feed = feed(true, Some(vec![1]));
        let mut content = Content::new(&feed, "").unwrap();
        let rows: Vec<_> = (0..100).map(|i| ("+I", "two\nlines", i)).collect();
        apply(&mut content, &feed, &rows);
        let screen = Screen { width: Some(60), height: 20, colour: false };
        let text = picture(&content, "title", screen, Expanded::Auto).unwrap();
        assert!(text.lines().count() < 20, "{text}");
        assert!(text.contains("more"), "{text}");
    }
}
