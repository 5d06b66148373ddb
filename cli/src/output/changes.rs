//! Changes as a table that grows: the header comes first and again after each screenful, and widths are chosen
//! from what has been seen.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_sql::Result;

use super::table::{Table, body, header, records};
use super::{Expanded, View, cannot_write};

/// Writes changes as they come.
pub(crate) struct ChangeTable {
    schema: SchemaRef,
    view: View,
    /// The widest of each column so far.
    natural: Vec<usize>,
    /// The widths in use; `None` before the first header and while rows are expanded.
    widths: Option<Vec<usize>>,
    since_header: usize,
    written: u64,
}

impl ChangeTable {
    /// A writer for changes of `schema`.
    pub(crate) fn new(schema: SchemaRef, view: View) -> Self {
        ChangeTable { schema, view, natural: Vec::new(), widths: None, since_header: 0, written: 0 }
    }

    /// Writes the rows of a batch.
    pub(crate) fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        // a screenful at a time, so that a large batch too has its header on every screen
        let page = self.view.screen.height.saturating_sub(4).max(1);
        let mut from = 0;
        while from < batch.num_rows() {
            let count = if self.view.screen.is_terminal() { page } else { batch.num_rows() };
            let mut table = Table::of(&self.schema);
            table.push(batch, from, from + count)?;
            let text = self.lines(&table, page);
            out.write_all(text.as_bytes()).map_err(cannot_write)?;
            from += count;
        }
        out.flush().map_err(cannot_write)
    }

    fn lines(&mut self, table: &Table, page: usize) -> String {
        let screen = self.view.screen;
        let first = self.written;
        self.written += table.rows.len() as u64;
        let wants = table.natural();
        self.natural.resize(wants.len(), 0);
        for (seen, want) in self.natural.iter_mut().zip(&wants) {
            *seen = (*seen).max(*want);
        }
        let fitting = match self.view.expanded {
            Expanded::On => None,
            Expanded::Off => table.fit(&self.natural, screen.width).or_else(|| Some(self.natural.clone())),
            Expanded::Auto => table.fit(&self.natural, screen.width),
        };
        let Some(fitting) = fitting else {
            self.widths = None;
            return records(table, first, screen);
        };
        let cramped = |widths: &Vec<usize>| {
            widths.iter().zip(&fitting).zip(&wants).any(|((has, could), want)| want > has && could > has)
        };
        let full = screen.is_terminal() && self.since_header + table.rows.len() > page;
        match self.widths.take().filter(|widths| !(full || screen.is_terminal() && cramped(widths))) {
            Some(widths) => {
                self.since_header += table.rows.len();
                let text = body(table, &widths, screen);
                self.widths = Some(widths);
                text
            }
            None => {
                self.since_header = table.rows.len();
                let text = header(table, &fitting, screen) + &body(table, &fitting, screen);
                self.widths = Some(fitting);
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::terminal::Screen;

    fn changes(op: &str, name: &str, rows: usize) -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("_op", Arc::new(StringArray::from(vec![op; rows]))),
            ("name", Arc::new(StringArray::from(vec![name; rows]))),
            ("n", Arc::new(Int64Array::from(vec![7; rows]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn shown(colour: bool, batches: &[RecordBatch]) -> String {
        let view =
            View { screen: Screen { width: Some(40), height: 10, colour }, expanded: Expanded::Auto, limit: None };
        let mut table = ChangeTable::new(batches[0].schema(), view);
        let mut out = Vec::new();
        for batch in batches {
            table.write(batch, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_header_comes_again_after_a_screenful() {
        let text = shown(false, &vec![changes("+I", "abc", 1); 13]);
        assert_eq!(text.matches("_op").count(), 3, "{text}");
        assert_eq!(shown(false, &[changes("+I", "abc", 13)]).matches("_op").count(), 3);
    }

    #[test]
    fn wider_rows_widen_the_table_and_the_widest_are_cut() {
        let text = shown(
            false,
            &[changes("+I", "a", 1), changes("+I", &"b".repeat(20), 1), changes("-D", &"c".repeat(50), 1)],
        );
        assert!(text.contains(&"b".repeat(20)), "{text}");
        assert!(text.contains("c…"), "{text}");
        assert!(text.lines().all(|line| crate::terminal::width(line) <= 40), "{text}");
    }

    #[test]
    fn operations_have_colours() {
        assert!(shown(true, &[changes("+I", "a", 1)]).contains("\x1b[32m+I\x1b[0m"));
        assert!(shown(true, &[changes("-D", "a", 1)]).contains("\x1b[31m-D\x1b[0m"));
    }
}
