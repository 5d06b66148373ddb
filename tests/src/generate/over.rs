//! Calls with OVER, and ORDER BY … LIMIT. What depends on the order of rows is asked of an order by all columns, in which only
//! rows that are the same are alike, and once in a query: two such calls tell rows apart that are the same, in whichever order
//! they come. So there is one answer.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Body, Column, From, Generator, Item, Kind, Op, Select};

impl Generator {
    /// Columns of rows, and calls with OVER; sometimes those rows only that are the first by one of them.
    pub(super) fn over(&mut self, depth: usize) -> Select {
        let (from, columns) = self.orderable(depth);
        let mut items: Vec<Item> = columns
            .iter()
            .map(|c| {
                let column = Column { name: self.name(), ..c.clone() };
                Item { sql: c.name.clone(), column, key: false }
            })
            .collect();
        let mut numbers = vec![];
        let mut of_order = self.chance(0.6);
        for _ in 0..self.rng.random_range(1..4) {
            let (call, kind, numbering) = self.over_call(&columns, std::mem::take(&mut of_order));
            let column = Column { name: self.name(), kind, wild: kind == Kind::Double };
            numbers.extend(numbering.then(|| column.name.clone()));
            items.push(Item { sql: call, column, key: false });
        }
        let all = plain(items, from);
        let Some(number) = numbers.choose(&mut self.rng).filter(|_| self.rng.random_bool(0.5)) else { return all };
        let (comparison, most) = (["<=", "<", "="][self.rng.random_range(0..3)], self.rng.random_range(1..4));
        let filters = vec![format!("({number} {comparison} {most})")];
        let given = all.items.iter().map(|i| i.column.clone()).collect::<Vec<_>>();
        let items = given.into_iter().map(|c| Item {
            sql: c.name.clone(),
            column: Column { name: self.name(), ..c },
            key: false,
        });
        let items = items.collect();
        Select { filters, ..plain(items, From::Body(Box::new(Body { parts: vec![all], op: Op::UnionAll }))) }
    }

    /// Some rows in an order.
    pub(super) fn limited(&mut self, depth: usize) -> Select {
        let (from, columns) = self.orderable(depth);
        let items = columns.iter().map(|c| Item {
            sql: c.name.clone(),
            column: Column { name: self.name(), ..c.clone() },
            key: false,
        });
        let items = items.collect();
        let order = self.whole_order(&columns);
        let limit = match self.rng.random_range(0..4) {
            0 => format!("LIMIT {} OFFSET {}", self.rng.random_range(0..8), self.rng.random_range(0..4)),
            1 => format!("OFFSET {}", self.rng.random_range(1..6)),
            _ => format!("LIMIT {}", self.rng.random_range(1..9)),
        };
        Select { limit: Some(format!("ORDER BY {order} {limit}")), ..plain(items, from) }
    }

    /// Rows whose columns have one order.
    fn orderable(&mut self, depth: usize) -> (From, Vec<Column>) {
        let mut rows = if self.chance(0.3) { self.groups(depth) } else { self.rows(depth) };
        let kinds = [Kind::Int, Kind::Text, Kind::Date, Kind::Time, Kind::Decimal, Kind::Bool];
        rows.items.retain(|i| kinds.contains(&i.column.kind) && !i.column.wild);
        if rows.items.is_empty() {
            let column = Column { name: self.name(), kind: Kind::Int, wild: false };
            let sql = if rows.groups { "count(*)".to_owned() } else { "7".to_owned() };
            rows.items.push(Item { sql, column, key: false });
        }
        let from = From::Body(Box::new(Body { parts: vec![rows], op: Op::UnionAll }));
        let columns = from.columns();
        (from, columns)
    }

    fn whole_order(&mut self, columns: &[Column]) -> String {
        let mut columns: Vec<&Column> = columns.iter().collect();
        columns.shuffle(&mut self.rng);
        let all: Vec<String> = columns.into_iter().map(|c| self.ordered(c)).collect();
        all.join(", ")
    }

    fn ordered(&mut self, column: &Column) -> String {
        let way = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"][self.rng.random_range(0..4)];
        format!("{}{way}", column.name)
    }

    /// A call that depends on the order of rows, or does not, its kind, and whether it numbers rows.
    fn over_call(&mut self, columns: &[Column], of_order: bool) -> (String, Kind, bool) {
        let mut over = String::new();
        if self.chance(0.7) {
            let by: Vec<&str> = (0..self.rng.random_range(1..3))
                .filter_map(|_| columns.choose(&mut self.rng))
                .map(|c| c.name.as_str())
                .collect();
            over.push_str(&format!("PARTITION BY {} ", by.join(", ")));
        }
        let whole = self.whole_order(columns);
        let some = columns.choose(&mut self.rng).cloned();
        let part = some.as_ref().map(|c| self.ordered(c)).unwrap_or_default();
        let value = columns.choose(&mut self.rng).cloned();
        let (value, kind) = value.map_or(("1".to_owned(), Kind::Int), |c| (c.name, c.kind));
        let rows = ["", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING"];
        let rows = rows[self.rng.random_range(0..3)];
        let groups = ["", " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", " RANGE UNBOUNDED PRECEDING"];
        let groups = groups[self.rng.random_range(0..3)];
        let (call, of, kind, numbers) = match (of_order, self.rng.random_range(0..6)) {
            (true, 0 | 1) => ("row_number()".to_owned(), format!("ORDER BY {whole}"), Kind::Int, true),
            (true, 2) => {
                let tiles = self.rng.random_range(1..5);
                (format!("ntile({tiles})"), format!("ORDER BY {whole}"), Kind::Int, false)
            }
            (true, 3) => {
                let call = ["lag", "lead"][self.rng.random_range(0..2)];
                let by = ["", ", 2"][self.rng.random_range(0..2)];
                (format!("{call}({value}{by})"), format!("ORDER BY {whole}"), kind, false)
            }
            (true, 4) => {
                let call = ["first_value", "last_value"][self.rng.random_range(0..2)];
                (format!("{call}({value})"), format!("ORDER BY {whole}{rows}"), kind, false)
            }
            (true, _) => {
                let (call, kind) = self.added(columns);
                (call, format!("ORDER BY {whole}{rows}"), kind, false)
            }
            (_, 0) => ("rank()".to_owned(), format!("ORDER BY {part}"), Kind::Int, true),
            (_, 1) => ("dense_rank()".to_owned(), format!("ORDER BY {part}"), Kind::Int, true),
            (_, 2) => {
                let call = ["percent_rank()", "cume_dist()"][self.rng.random_range(0..2)];
                (call.to_owned(), format!("ORDER BY {part}"), Kind::Double, false)
            }
            (_, 3) => {
                let (call, kind) = self.added(columns);
                (call, String::new(), kind, false)
            }
            _ => {
                let (call, kind) = self.added(columns);
                (call, format!("ORDER BY {part}{groups}"), kind, false)
            }
        };
        (format!("{call} OVER ({over}{of})"), kind, numbers)
    }

    /// An aggregate whose value does not depend on an order.
    fn added(&mut self, columns: &[Column]) -> (String, Kind) {
        let one = columns.choose(&mut self.rng).cloned();
        match (self.rng.random_range(0..4), one) {
            (0, Some(c)) => (format!("{}({})", ["min", "max"][self.rng.random_range(0..2)], c.name), c.kind),
            (1, Some(c)) => (format!("count({})", c.name), Kind::Int),
            (2, Some(c)) if c.kind == Kind::Int => (format!("sum({} % 1000)", c.name), Kind::Int),
            _ => ("count(*)".to_owned(), Kind::Int),
        }
    }
}

fn plain(items: Vec<Item>, from: From) -> Select {
    Select { distinct: false, items, from, filters: vec![], groups: false, having: None, limit: None }
}
