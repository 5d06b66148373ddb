//! Joins and subqueries.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Body, Column, From, Generator, Item, Kind, Op, Select};

/// How two sides are joined.
const JOINS: [&str; 8] = ["JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"];

impl Generator {
    /// Two streams, or one twice, of which each gives a few columns under names of its own.
    pub(super) fn joined(&mut self) -> From {
        let join = JOINS.choose(&mut self.rng).copied().unwrap_or("JOIN");
        let sides = [self.side(join), self.side(join)];
        let columns = sides.each_ref().map(|side| From::Body(Box::new(side.clone())).columns());
        let mut on = vec![];
        if join != "CROSS JOIN" {
            on.extend(self.equality(&columns));
            if on.is_empty() || self.chance(0.2) {
                let all: Vec<Column> = columns.concat();
                on.push(format!("({})", self.condition(&all, 1)));
            }
            if self.chance(0.3) {
                on.extend(self.comparison_of(&columns));
            }
        }
        let [left, right] = sides.map(Box::new);
        let names = [self.name(), self.name()];
        From::Join { join, left, right, names, on }
    }

    /// Some columns of a stream; few rows, where each is to meet each.
    fn side(&mut self, join: &str) -> Body {
        let streams = ["bids", "bids", "clicks", "visits", "accounts", "accounts", "loose", "nothing"];
        let from = From::Stream(streams.choose(&mut self.rng).copied().unwrap_or("bids"));
        let columns = from.columns();
        let mut items: Vec<Item> = vec![];
        for wanted in ["id", "k"] {
            if let Some(column) = columns.iter().find(|c| c.name == wanted)
                && self.chance(0.8)
            {
                items.push(self.renamed(column));
            }
        }
        for _ in 0..self.rng.random_range(1..3) {
            if let Some(column) = columns.choose(&mut self.rng).cloned() {
                items.push(self.renamed(&column));
            }
        }
        let mut filters = self.filters(&columns);
        if join == "CROSS JOIN" || self.chance(0.2) {
            let few = columns.iter().find(|c| c.name == "id").or(columns.iter().find(|c| c.name == "price"));
            filters.extend(few.map(|c| format!("({} % 7 = 1)", c.name)));
        }
        let select =
            Select { distinct: self.chance(0.1), items, from, filters, groups: false, having: None, limit: None };
        Body { parts: vec![select], op: Op::UnionAll }
    }

    fn renamed(&mut self, column: &Column) -> Item {
        let named = Column { name: self.name(), ..column.clone() };
        Item { sql: column.name.clone(), column: named, key: false }
    }

    /// Columns of one kind, of both sides.
    fn both(&mut self, columns: &[Vec<Column>; 2], kinds: &[Kind]) -> Option<(String, String)> {
        let left = columns[0].iter().filter(|c| kinds.contains(&c.kind)).collect::<Vec<_>>();
        let left = (*left.choose(&mut self.rng)?).clone();
        let right = columns[1].iter().filter(|c| c.kind == left.kind).collect::<Vec<_>>();
        Some((left.name, right.choose(&mut self.rng)?.name.clone()))
    }

    fn equality(&mut self, columns: &[Vec<Column>; 2]) -> Vec<String> {
        let kinds = [Kind::Int, Kind::Text, Kind::Date, Kind::Double, Kind::Decimal, Kind::Bool, Kind::Time];
        let mut on = vec![];
        // The first columns are those that tell many rows apart.
        if let (Some(a), Some(b)) = (columns[0].first(), columns[1].first())
            && a.kind == b.kind
            && kinds.contains(&a.kind)
            && self.chance(0.8)
        {
            on.push(format!("{} = {}", a.name, b.name));
        }
        if on.is_empty() || self.chance(0.3) {
            on.extend(self.both(columns, &kinds).map(|(a, b)| format!("{a} = {b}")));
        }
        on
    }

    fn comparison_of(&mut self, columns: &[Vec<Column>; 2]) -> Option<String> {
        let (a, b) = self.both(columns, &[Kind::Int, Kind::Double, Kind::Text, Kind::Time, Kind::Date])?;
        Some(format!("{a} {} {b}", self.comparison()))
    }

    /// A condition that asks another stream.
    pub(super) fn asked(&mut self, columns: &[Column]) -> Option<String> {
        let outer: Vec<&Column> =
            columns.iter().filter(|c| matches!(c.kind, Kind::Int | Kind::Text | Kind::Date)).collect();
        let outer = (*outer.choose(&mut self.rng)?).clone();
        let mut side = self.side("JOIN");
        let select = side.parts.first_mut()?;
        let inner: Vec<Item> = select.items.iter().filter(|i| i.column.kind == outer.kind).cloned().collect();
        let inner = inner.choose(&mut self.rng)?.clone();
        let (name, its, alias) = (&outer.name, &inner.column.name, self.name());
        Some(match self.rng.random_range(0..5) {
            0 | 1 => {
                select.items = vec![inner.clone()];
                let not = if self.chance(0.4) { "NOT " } else { "" };
                format!("({name} {not}IN ({side}))")
            }
            2 | 3 => {
                let not = if self.chance(0.4) { "NOT " } else { "" };
                let more = if self.chance(0.3) { format!(" AND {alias}.{its} IS NOT NULL") } else { String::new() };
                format!("({not}EXISTS (SELECT 1 FROM ({side}) {alias} WHERE {alias}.{its} = {name}{more}))")
            }
            _ => {
                let call = if self.chance(0.5) { "min" } else { "max" };
                let own = if self.chance(0.5) { format!(" WHERE {alias}.{its} = {name}") } else { String::new() };
                format!("({name} {} (SELECT {call}({alias}.{its}) FROM ({side}) {alias}{own}))", self.comparison())
            }
        })
    }
}
