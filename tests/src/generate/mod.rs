//! Random queries over the streams of the world.
//!
//! ```text
//! body   = select | select UNION [ALL] | INTERSECT | EXCEPT select …
//! select = SELECT [DISTINCT] items FROM from [WHERE …] [GROUP BY …] [HAVING …] [ORDER BY … LIMIT …], items with OVER
//! from   = stream | TUMBLE/HOP/CUMULATE(from, ts, …) | (body) | (body) JOIN (body) ON …
//! ```
//! A query is kept as a tree, so that one that fails can be made smaller. Its expressions are text: `expr.rs`.

mod expr;
mod join;
mod over;
mod shrink;

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

pub use expr::{Column, Kind};
pub use shrink::smaller;

/// A query.
#[derive(Clone, Debug)]
pub struct Body {
    /// One, or the parts of a union.
    pub parts: Vec<Select>,
    /// What is made of several.
    pub op: Op,
}

/// What is made of several selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Op {
    UnionAll,
    Union,
    Intersect,
    Except,
}

/// `SELECT …`.
#[derive(Clone, Debug)]
pub struct Select {
    /// `SELECT DISTINCT`.
    pub distinct: bool,
    /// What it gives.
    pub items: Vec<Item>,
    /// What it reads.
    pub from: From,
    /// The terms of its `WHERE`.
    pub filters: Vec<String>,
    /// Whether it groups, by the items that are keys.
    pub groups: bool,
    /// Its `HAVING`.
    pub having: Option<String>,
    /// Its `ORDER BY … LIMIT …`.
    pub limit: Option<String>,
}

/// A column of a result.
#[derive(Clone, Debug)]
pub struct Item {
    /// How it is computed.
    pub sql: String,
    /// Its name.
    pub column: Column,
    /// Whether it is grouped by.
    pub key: bool,
}

/// What is read.
#[derive(Clone, Debug)]
pub enum From {
    /// A stream.
    Stream(&'static str),
    /// A window function with its further arguments.
    Windows(&'static str, &'static str, Box<From>),
    /// A subquery.
    Body(Box<Body>),
    /// Two, with names of their own, and what holds of their pairs.
    #[allow(missing_docs, reason = "the names say it")]
    Join { join: &'static str, left: Box<Body>, right: Box<Body>, names: [String; 2], on: Vec<String> },
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            match (i, self.op) {
                (0, _) => {}
                (_, Op::UnionAll) => f.write_str(" UNION ALL ")?,
                (_, Op::Union) => f.write_str(" UNION ")?,
                (_, Op::Intersect) => f.write_str(" INTERSECT ")?,
                (_, Op::Except) => f.write_str(" EXCEPT ")?,
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.items.iter().map(|i| format!("{} AS {}", i.sql, i.column.name)).collect();
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        write!(f, "SELECT {distinct}{} FROM {}", items.join(", "), self.from)?;
        if !self.filters.is_empty() {
            write!(f, " WHERE {}", self.filters.join(" AND "))?;
        }
        let keys: Vec<&str> = self.items.iter().filter(|i| i.key).map(|i| i.sql.as_str()).collect();
        if self.groups && !keys.is_empty() {
            write!(f, " GROUP BY {}", keys.join(", "))?;
        }
        self.having.iter().try_for_each(|h| write!(f, " HAVING {h}"))?;
        self.limit.iter().try_for_each(|l| write!(f, " {l}"))
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Stream(name) => f.write_str(name),
            From::Windows(function, lengths, of) => write!(f, "{function}({of}, ts, {lengths})"),
            From::Body(body) => write!(f, "({body})"),
            From::Join { join, left, right, names: [a, b], on } => {
                write!(f, "({left}) {a} {join} ({right}) {b}")?;
                if on.is_empty() { Ok(()) } else { write!(f, " ON {}", on.join(" AND ")) }
            }
        }
    }
}

/// Window functions, with lengths that fit rows of a minute and a half, and of two years.
const WINDOWS: [(&str, &str); 8] = [
    ("TUMBLE", "INTERVAL '10 seconds'"),
    ("TUMBLE", "INTERVAL '7 seconds', INTERVAL '2 seconds'"),
    ("HOP", "INTERVAL '5 seconds', INTERVAL '15 seconds'"),
    ("HOP", "INTERVAL '4 seconds', INTERVAL '10 seconds'"),
    ("CUMULATE", "INTERVAL '5 seconds', INTERVAL '20 seconds'"),
    ("TUMBLE", "INTERVAL '1 month'"),
    ("HOP", "INTERVAL '1 month', INTERVAL '3 months'"),
    ("HOP", "INTERVAL '10 days', INTERVAL '30 days'"),
];

/// Makes queries.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    /// Numbers the columns: names are used once.
    names: usize,
}

/// The query of a seed.
pub fn query(seed: u64) -> Body {
    Generator { rng: StdRng::seed_from_u64(seed), names: 0 }.body(2)
}

impl Generator {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("c{}", self.names)
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn body(&mut self, depth: usize) -> Body {
        if self.chance(0.15) {
            return self.union(depth);
        }
        Body { parts: vec![self.select(depth)], op: Op::UnionAll }
    }

    /// Parts that have columns of the same kinds.
    fn union(&mut self, depth: usize) -> Body {
        let mut first = self.rows(depth);
        // Values of the others cannot be computed, and a part must have some.
        first.items.retain(|i| !matches!(i.column.kind, Kind::Struct | Kind::List | Kind::Bytes | Kind::Structs));
        let kinds: Vec<Column> = first.items.iter().map(|i| i.column.clone()).collect();
        let mut parts = vec![first];
        for _ in 0..self.rng.random_range(1..3) {
            let from = self.from(depth);
            let columns = from.columns();
            let items = kinds.iter().map(|c| {
                let sql = self.value(&columns, c.kind, 1);
                Item { sql: self.typed(sql, c.kind), column: c.clone(), key: false }
            });
            let items = items.collect();
            let filters = self.filters(&columns);
            parts.push(Select { distinct: false, items, from, filters, groups: false, having: None, limit: None });
        }
        let op = match self.rng.random_range(0..10) {
            0..6 => Op::UnionAll,
            6 | 7 => Op::Union,
            8 => Op::Intersect,
            _ => Op::Except,
        };
        if matches!(op, Op::Intersect | Op::Except) {
            // What they have in common has the type of the first.
            for item in parts.iter_mut().flat_map(|part: &mut Select| &mut part.items) {
                match item.column.kind {
                    Kind::Bool => item.sql = format!("CAST({} AS BOOLEAN)", item.sql),
                    Kind::Text => item.sql = format!("CAST({} AS TEXT)", item.sql),
                    Kind::Time => item.sql = format!("CAST({} AS TIMESTAMP)", item.sql),
                    _ => {}
                }
            }
        }
        Body { parts, op }
    }

    fn select(&mut self, depth: usize) -> Select {
        match self.rng.random_range(0..12) {
            0..3 => self.rows(depth),
            10 => self.over(depth),
            11 => self.limited(depth),
            3 => Select { distinct: true, ..self.keys_only(depth) },
            _ => self.groups(depth),
        }
    }

    fn from(&mut self, depth: usize) -> From {
        match self.rng.random_range(0..10) {
            0..2 => self.joined(),
            2..4 if depth > 0 => From::Body(Box::new(self.body(depth - 1))),
            _ => From::Stream(
                ["bids", "bids", "bids", "clicks", "visits", "accounts", "loose", "nothing"]
                    .choose(&mut self.rng)
                    .unwrap_or(&"bids"),
            ),
        }
    }

    fn filters(&mut self, columns: &[Column]) -> Vec<String> {
        let n = [0, 0, 1, 1, 2][self.rng.random_range(0..5)];
        let mut filters: Vec<String> = (0..n).map(|_| format!("({})", self.condition(columns, 2))).collect();
        if self.chance(0.12) {
            filters.extend(self.asked(columns));
        }
        filters
    }

    fn item(&mut self, columns: &[Column], kind: Kind, depth: usize) -> Item {
        let sql = self.value(columns, kind, depth);
        let column = Column { name: self.name(), kind, wild: false };
        Item { sql: self.typed(sql, kind), column, key: false }
    }

    fn rows(&mut self, depth: usize) -> Select {
        let from = self.from(depth);
        let columns = from.columns();
        let mut items = vec![];
        for _ in 0..self.rng.random_range(1..5) {
            let kind = self.kind();
            items.push(self.item(&columns, kind, 2));
        }
        for _ in 0..self.rng.random_range(0..3) {
            items.extend(self.passed(&columns));
        }
        let filters = self.filters(&columns);
        Select { distinct: false, items, from, filters, groups: false, having: None, limit: None }
    }

    /// A column as it is.
    fn passed(&mut self, columns: &[Column]) -> Option<Item> {
        let column = columns.choose(&mut self.rng)?.clone();
        let named = Column { name: self.name(), ..column.clone() };
        Some(Item { sql: column.name, column: named, key: true })
    }

    fn keys_only(&mut self, depth: usize) -> Select {
        let from = self.from(depth);
        let columns = from.columns();
        let items = self.keys(&columns, 3);
        let filters = self.filters(&columns);
        Select { distinct: false, items, from, filters, groups: false, having: None, limit: None }
    }

    fn keys(&mut self, columns: &[Column], most: usize) -> Vec<Item> {
        let mut keys: Vec<Item> = vec![];
        for _ in 0..self.rng.random_range(1..=most) {
            let key = match self.rng.random_range(0..3) {
                0 => {
                    let kind = [Kind::Int, Kind::Text, Kind::Bool, Kind::Date].choose(&mut self.rng).copied();
                    Some(self.item(columns, kind.unwrap_or(Kind::Int), 1))
                }
                _ => self.passed(columns),
            };
            let constant = |sql: &str| !columns.iter().any(|c| sql.contains(c.name.as_str()));
            keys.extend(key.filter(|k| keys.iter().all(|other| other.sql != k.sql) && !constant(&k.sql)));
        }
        if keys.is_empty() {
            keys.extend(self.passed(columns));
        }
        keys.iter_mut().for_each(|k| k.key = true);
        keys
    }

    fn groups(&mut self, depth: usize) -> Select {
        let mut from = self.from(depth);
        let windows = match &from {
            From::Stream("bids" | "clicks") if self.chance(0.5) => Some(0..5),
            From::Stream("visits") if self.chance(0.5) => Some(5..8),
            _ => None,
        };
        let mut items = vec![];
        if let Some(windows) = windows {
            let (function, lengths) = WINDOWS[self.rng.random_range(windows)];
            from = From::Windows(function, lengths, Box::new(from));
            for bound in ["window_start", "window_end"] {
                let column = Column { name: bound.to_owned(), kind: Kind::Time, wild: false };
                items.push(Item { sql: bound.to_owned(), column, key: true });
            }
        }
        let columns = from.columns();
        if self.chance(0.75) {
            let more = self.keys(&columns, 2);
            items.extend(more.into_iter().filter(|k| !k.sql.starts_with("window_")));
        }
        for _ in 0..self.rng.random_range(1..5) {
            items.push(self.aggregate(&columns));
        }
        let filters = self.filters(&columns);
        let having =
            self.chance(0.2).then(|| format!("count(*) {} {}", self.comparison(), self.rng.random_range(0..9)));
        Select { distinct: false, items, from, filters, groups: true, having, limit: None }
    }

    fn aggregate(&mut self, columns: &[Column]) -> Item {
        let (sql, kind, wild) = self.call(columns);
        let filter =
            if self.chance(0.2) { format!(" FILTER (WHERE {})", self.condition(columns, 1)) } else { String::new() };
        Item { sql: format!("{sql}{filter}"), column: Column { name: self.name(), kind, wild }, key: false }
    }
}

impl From {
    /// What it gives.
    pub fn columns(&self) -> Vec<Column> {
        match self {
            From::Stream(name) => expr::columns(name),
            From::Windows(_, _, of) => {
                let bound = |name: &str| Column { name: name.to_owned(), kind: Kind::Time, wild: false };
                let mut columns = of.columns();
                columns.extend(["window_start", "window_end"].map(bound));
                columns
            }
            From::Join { left, right, .. } => {
                let of = |body: &Body| From::Body(Box::new(body.clone())).columns();
                [of(left), of(right)].concat()
            }
            From::Body(body) => {
                let first = body.parts.first().map(|s| s.items.iter().map(|i| i.column.clone()).collect());
                first.unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;

    #[test]
    fn a_seed_makes_one_query_that_can_be_parsed() -> Result<()> {
        for seed in 0..300 {
            let sql = query(seed).to_string();
            assert_eq!(sql, query(seed).to_string());
            crate::case::query(&sql).map_err(|e| format!("{sql}: {e}"))?;
        }
        Ok(())
    }
}
