//! Tables that fit: columns shrink to the width of the screen, and where that leaves too little, each row is shown
//! expanded, one line per column.

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use millstream_sql::Result;

use super::{View, cannot_write, value};
use crate::terminal::{Screen, paint, shorten, width};

/// Widths are chosen from this many rows; the next ones follow them.
const LOOK_AHEAD: usize = 1_000;
/// A text column is not made narrower than this, nor is a column name.
const NARROWEST: usize = 6;
const BETWEEN: usize = 3;

/// When rows are shown expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Expanded {
    /// When the table does not fit.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    name: String,
    right: bool,
    whole: bool,
}

/// Rows as text.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn of(schema: &Schema) -> Self {
        let columns = schema.fields().iter().map(|field| Column {
            name: printable(field.name()).replace('\n', " "),
            right: value::is_number(field.data_type()),
            whole: value::is_whole(field.data_type()),
        });
        Table { columns: columns.collect(), rows: Vec::new() }
    }

    /// A table of texts.
    pub(crate) fn texts(names: &[&str], rows: Vec<Vec<Option<String>>>) -> Self {
        let column = |name: &&str| Column { name: (*name).to_owned(), right: false, whole: false };
        Table { columns: names.iter().map(column).collect(), rows }
    }

    /// Aligns column `index` as numbers.
    #[must_use]
    pub(crate) fn with_number(mut self, index: usize) -> Self {
        if let Some(column) = self.columns.get_mut(index) {
            (column.right, column.whole) = (true, true);
        }
        self
    }

    /// Adds rows `from..to` of a batch.
    pub(crate) fn push(&mut self, batch: &RecordBatch, from: usize, to: usize) -> Result<()> {
        let formatters = value::formatters(batch)?;
        let nulls: Vec<_> = batch.columns().iter().map(|column| column.logical_nulls()).collect();
        for row in from..to.min(batch.num_rows()) {
            let cells = formatters.iter().zip(&nulls).map(|(formatter, nulls)| {
                (!nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)))
                    .then(|| printable(&formatter.value(row).to_string()))
            });
            self.rows.push(cells.collect());
        }
        Ok(())
    }

    /// The width of each column that shows all of it.
    pub(crate) fn natural(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|c| width(&c.name)).collect();
        for row in &self.rows {
            for (w, cell) in widths.iter_mut().zip(row) {
                *w = (*w).max(cell_width(cell.as_deref()));
            }
        }
        widths
    }

    /// The widths for a screen of `limit` columns; `None` when it is too narrow.
    pub(crate) fn fit(&self, natural: &[usize], limit: Option<usize>) -> Option<Vec<usize>> {
        let Some(limit) = limit else { return Some(natural.to_vec()) };
        let frame = 2 + BETWEEN * natural.len().saturating_sub(1);
        let room = limit.checked_sub(frame)?;
        // a single column is never cut: plans and texts are read line by line
        if natural.iter().sum::<usize>() <= room || natural.len() == 1 {
            return Some(natural.to_vec());
        }
        let least: Vec<usize> = (0..natural.len()).map(|i| self.least(i, natural)).collect();
        if least.iter().sum::<usize>() > room {
            return None;
        }
        // the widest give way first: the largest cap under which all fit
        let capped = |cap: usize| natural.iter().zip(&least).map(move |(n, l)| (*n).min(cap.max(*l)));
        let widest = natural.iter().copied().max().unwrap_or(0);
        let cap = (0..=widest).rev().find(|cap| capped(*cap).sum::<usize>() <= room)?;
        let mut widths: Vec<usize> = capped(cap).collect();
        // what rounding left over goes to the first columns that want it
        let mut spare = room - widths.iter().sum::<usize>();
        for (w, n) in widths.iter_mut().zip(natural) {
            if spare > 0 && *w < *n {
                *w += 1;
                spare -= 1;
            }
        }
        Some(widths)
    }

    fn least(&self, index: usize, natural: &[usize]) -> usize {
        let natural = natural.get(index).copied().unwrap_or(0);
        if !self.columns.get(index).is_some_and(|c| c.whole) {
            // texts of several lines, such as plans, are worth nothing when they are cut
            let lines = self.rows.iter().filter_map(|row| row.get(index)?.as_deref()).any(|cell| cell.contains('\n'));
            return if lines { natural } else { natural.min(NARROWEST) };
        }
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell_width(cell.as_deref()));
        cells.max().unwrap_or(0).max(natural.min(NARROWEST))
    }
}

/// Shows all of `table`.
pub(crate) fn render(table: &Table, screen: Screen, expanded: Expanded) -> String {
    let fitting = if expanded == Expanded::On { None } else { table.fit(&table.natural(), screen.width) };
    match fitting {
        Some(widths) => header(table, &widths, screen) + &body(table, &widths, screen),
        None if expanded == Expanded::Off => {
            let widths = table.natural();
            header(table, &widths, screen) + &body(table, &widths, screen)
        }
        None => records(table, 0, screen),
    }
}

/// The names and the line under them.
pub(crate) fn header(table: &Table, widths: &[usize], screen: Screen) -> String {
    let names = table.columns.iter().zip(widths).map(|(column, w)| {
        let name = shorten(&column.name, *w);
        let padded = pad(&name, *w, column.right);
        padded.replacen(&name, &paint(&name, "1", screen.colour), 1)
    });
    let line = names.collect::<Vec<_>>().join(" │ ");
    let rule = widths.iter().map(|w| "─".repeat(*w)).collect::<Vec<_>>().join("─┼─");
    format!(" {}\n─{rule}─\n", line.trim_end())
}

/// The rows; a value of several lines makes a row of several lines.
pub(crate) fn body(table: &Table, widths: &[usize], screen: Screen) -> String {
    let mut text = String::new();
    for row in &table.rows {
        let height = row.iter().map(|cell| cell.as_deref().map_or(1, |c| c.split('\n').count())).max().unwrap_or(1);
        for line in 0..height {
            text.push_str(&row_line(table, row, line, widths, screen));
            text.push('\n');
        }
    }
    text
}

fn row_line(table: &Table, row: &[Option<String>], line: usize, widths: &[usize], screen: Screen) -> String {
    let mut text = String::new();
    for (i, ((cell, column), w)) in row.iter().zip(&table.columns).zip(widths).enumerate() {
        text.push_str(if i > 0 { " │ " } else { " " });
        let shown = match cell {
            Some(cell) => cell.split('\n').nth(line).unwrap_or("").to_owned(),
            None if line == 0 => "NULL".to_owned(),
            None => String::new(),
        };
        // a number is shown whole even where it breaks the alignment
        let shown = if column.whole || screen.width.is_none() { shown } else { shorten(&shown, *w) };
        let padded = pad(&shown, *w, column.right);
        if cell.is_none() {
            text.push_str(&padded.replacen("NULL", &paint("NULL", "2", screen.colour), 1));
        } else if column.name == OP && i == 0 {
            text.push_str(&padded.replacen(&shown, &paint(&shown, op_style(&shown), screen.colour), 1));
        } else {
            text.push_str(&padded);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The column that says what a change does.
const OP: &str = "_op";

fn op_style(op: &str) -> &'static str {
    match op {
        "+I" => "32",
        "+U" => "36",
        "-U" => "2;36",
        _ => "31",
    }
}

/// Rows `first + 1`, … with one line per column.
pub(crate) fn records(table: &Table, first: u64, screen: Screen) -> String {
    let names = table.columns.iter().map(|c| width(&c.name)).max().unwrap_or(0);
    let names = screen.width.map_or(names, |w| names.min(w / 2));
    let values = screen.width.map_or(usize::MAX, |w| w.saturating_sub(names + BETWEEN + 1).max(1));
    let mut text = String::new();
    for (n, row) in table.rows.iter().enumerate() {
        let title = format!("─[ row {} ]", first + n as u64 + 1);
        let rule = "─".repeat(screen.width.unwrap_or(60).min(60).saturating_sub(width(&title)));
        text += &paint(&format!("{title}{rule}"), "2", screen.colour);
        text.push('\n');
        for (column, cell) in table.columns.iter().zip(row) {
            let name = shorten(&column.name, names);
            let mut label = paint(&pad(&name, names, false), "1", screen.colour);
            let value = cell.clone().unwrap_or_else(|| paint("NULL", "2", screen.colour));
            for line in value.split('\n') {
                let line = if cell.is_some() { wrapped(line, values) } else { vec![line.to_owned()] };
                for part in line {
                    text += format!(" {label} │ {part}").trim_end();
                    text.push('\n');
                    label = " ".repeat(names);
                }
            }
        }
    }
    text
}

/// `text` in pieces of at most `limit` columns: expanded rows show everything.
fn wrapped(text: &str, limit: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for c in text.chars() {
        let mut piece = [0; 4];
        let fits = lines.last().is_some_and(|l| l.is_empty() || width(l) + width(c.encode_utf8(&mut piece)) <= limit);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push(c);
        }
    }
    lines
}

/// `text` filled up to `w` columns.
pub(crate) fn pad(text: &str, w: usize, right: bool) -> String {
    let blanks = " ".repeat(w.saturating_sub(width(text)));
    if right { blanks + text } else { text.to_owned() + &blanks }
}

fn cell_width(cell: Option<&str>) -> usize {
    cell.map_or(4, |c| c.split('\n').map(width).max().unwrap_or(0))
}

/// Text that cannot move the cursor or change the terminal; newlines stay.
fn printable(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push(c),
            '\t' => clean.push_str("    "),
            c if c.is_control() => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    clean
}

/// Writes one result as a table.
pub(crate) struct TableWriter {
    table: Table,
    view: View,
    layout: Option<Layout>,
    /// Rows written or waiting to be.
    taken: usize,
    written: u64,
}

enum Layout {
    Columns(Vec<usize>),
    Records,
}

impl TableWriter {
    /// A writer for rows of `schema`.
    pub(crate) fn new(schema: SchemaRef, view: View) -> Self {
        TableWriter { table: Table::of(&schema), view, layout: None, taken: 0, written: 0 }
    }

    /// Takes rows, and writes when enough are there to choose the widths.
    pub(crate) fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        let mut from = 0;
        while from < batch.num_rows() {
            let wanted = self.view.limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.taken));
            let count = (batch.num_rows() - from).min(LOOK_AHEAD - self.table.rows.len()).min(wanted);
            if count == 0 {
                break;
            }
            self.table.push(batch, from, from + count)?;
            self.taken += count;
            from += count;
            if self.table.rows.len() == LOOK_AHEAD {
                self.emit(out)?;
            }
        }
        Ok(())
    }

    /// Writes the rest. Gives the number of rows written.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> Result<u64> {
        if self.layout.is_none() || !self.table.rows.is_empty() {
            self.emit(out)?;
        }
        Ok(self.written)
    }

    fn emit(&mut self, out: &mut dyn Write) -> Result<()> {
        let (screen, table) = (self.view.screen, &self.table);
        let mut text = String::new();
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => {
                let natural = table.natural();
                match (self.view.expanded, table.fit(&natural, screen.width)) {
                    (Expanded::On, _) | (Expanded::Auto, None) if !table.rows.is_empty() => Layout::Records,
                    (_, fitting) => {
                        let widths = fitting.unwrap_or(natural);
                        text = header(table, &widths, screen);
                        Layout::Columns(widths)
                    }
                }
            }
        };
        match &layout {
            Layout::Columns(widths) => text += &body(table, widths, screen),
            Layout::Records => text += &records(table, self.written, screen),
        }
        self.layout = Some(layout);
        self.written += self.table.rows.len() as u64;
        self.table.rows.clear();
        out.write_all(text.as_bytes()).map_err(cannot_write)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, written};
    use super::super::{Format, View};
    use super::*;

    fn at(width: usize) -> Screen {
        Screen { width: Some(width), height: 24, colour: false }
    }

    fn sample_table() -> Table {
        let batch = sample();
        let mut table = Table::of(&batch.schema());
        table.push(&batch, 0, batch.num_rows()).unwrap();
        table
    }

    #[test]
    fn a_table() {
        assert_eq!(
            render(&sample_table(), at(200), Expanded::Auto),
            concat!(
                "   id │ name  │ at                      │ mean │ ok    │ list\n",
                "──────┼───────┼─────────────────────────┼──────┼───────┼───────\n",
                "    1 │ a,\"b\" │ 2001-01-01 00:05:00     │  0.1 │ true  │ [1, ]\n",
                "      │ 日本  │                         │      │       │\n",
                " NULL │       │ 2001-01-01 00:05:00.500 │  1.0 │ false │ []\n",
                " -300 │ NULL  │ NULL                    │ NULL │ NULL  │ NULL\n",
            )
        );
    }

    #[test]
    fn every_line_fits_every_screen() {
        let long = "long words in a column that is far too wide for a terminal 日本語日本語";
        let rows =
            (0..3).map(|i| vec![Some(format!("{i}")), Some(long.repeat(i + 1)), None, Some("é\u{301}👍".into())]);
        let table = Table::texts(&["n", "a text", "nothing", "emoji"], rows.collect()).with_number(0);
        for screen in 40..=200 {
            for table in [&table, &sample_table()] {
                for expanded in [Expanded::Auto, Expanded::On] {
                    for line in render(table, at(screen), expanded).lines() {
                        assert!(width(line) <= screen, "{screen}: {} {line}", width(line));
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_and_times_are_never_cut() {
        let text = render(&sample_table(), at(60), Expanded::Auto);
        assert!(text.contains("2001-01-01 00:05:00.500"), "{text}");
        assert!(text.contains("-300"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_expanded() {
        let names: Vec<String> = (0..30).map(|i| format!("column_{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let table = Table::texts(&names, vec![vec![Some("some value".to_owned()); 30]]);
        let text = render(&table, at(80), Expanded::Auto);
        assert!(text.starts_with("─[ row 1 ]──"), "{text}");
        assert!(text.contains(" column_29 │ some value\n"), "{text}");
        assert!(render(&table, Screen::PLAIN, Expanded::Auto).starts_with(" column_0 "));
    }

    #[test]
    fn control_characters_do_nothing() {
        let table = Table::texts(&["t"], vec![vec![Some(printable("\x1b[2J\tx\r"))]]);
        assert!(render(&table, at(80), Expanded::Off).contains("\\u{1b}[2J    x\\r"));
    }

    #[test]
    fn a_limit_stops_the_table_and_says_so() {
        let view = View { limit: Some(2), ..View::PLAIN };
        let text = written(Format::Table, view, &[sample(), sample()]);
        assert!(!text.contains("-300"), "{text}");
        let mut writer = TableWriter::new(sample().schema(), view);
        writer.write(&sample(), &mut Vec::new()).unwrap();
        assert_eq!(writer.finish(&mut Vec::new()).unwrap(), 2);
    }

    #[test]
    fn many_batches_have_one_header() {
        let batches = vec![sample(); 1_000];
        let text = written(Format::Table, View::PLAIN, &batches);
        assert_eq!(text.matches("┼").count(), 5);
        assert_eq!(text.matches("-300").count(), 1_000);
    }

    #[test]
    fn a_plan_is_shown_whole() {
        let plan = format!("Sort\n  {}", "x".repeat(150));
        let table = Table::texts(&["kind", "plan"], vec![vec![Some("logical".into()), Some(plan)]]);
        let text = render(&table, at(80), Expanded::Auto);
        assert!(text.starts_with("─[ row 1 ]") && text.matches('x').count() == 150, "{text}");
    }

    #[test]
    fn no_rows_have_a_header() {
        let text = written(Format::Table, View::PLAIN, &[sample().slice(0, 0)]);
        assert_eq!(text.lines().count(), 2);
    }
}
