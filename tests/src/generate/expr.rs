//! Random expressions, as text. What they compute stays small enough to be exact and never to fail: rows that fail are
//! the matter of `poison.rs`, values at the edges of their types are compared, grouped and passed on.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::Generator;
use crate::pending::{Pending, is_pending};

/// A column that expressions may use.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it holds the edges of its type, NaN or infinities, with which nothing is computed.
    pub wild: bool,
}

/// A family of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Int,
    Double,
    Decimal,
    Bool,
    Text,
    Date,
    Time,
    Struct,
    List,
    Bytes,
    Structs,
}

use Kind::{Bool, Bytes, Date, Decimal, Double, Int, List, Struct, Structs, Text, Time};

/// The columns of a stream of the world.
pub(super) fn columns(stream: &str) -> Vec<Column> {
    let tame: &[(&str, Kind)] = match stream {
        "bids" => &[
            ("id", Int),
            ("k", Int),
            ("name", Text),
            ("price", Int),
            ("small", Int),
            ("x", Double),
            ("d", Decimal),
            ("b", Bool),
            ("day", Date),
            ("ts", Time),
            ("bin", Bytes),
            ("s", Struct),
            ("l", List),
            ("ls", Structs),
        ],
        "clicks" => &[("id", Int), ("k", Int), ("name", Text), ("ts", Time)],
        "visits" => &[("id", Int), ("name", Text), ("amount", Decimal), ("ts", Time)],
        "nothing" => &[("id", Int), ("k", Int), ("x", Double), ("ts", Time)],
        "accounts" => &[
            ("id", Int),
            ("k", Int),
            ("name", Text),
            ("price", Int),
            ("x", Double),
            ("d", Decimal),
            ("day", Date),
            ("s", Struct),
        ],
        _ => &[("k", Int), ("name", Text), ("price", Int), ("x", Double), ("b", Bool), ("l", List)],
    };
    let wild: &[(&str, Kind)] = match stream {
        "bids" => &[
            ("f", Double),
            ("wb", Int),
            ("wt", Int),
            ("wu", Int),
            ("wf", Double),
            ("wr", Double),
            ("wd", Decimal),
            ("wday", Date),
            ("wts", Time),
        ],
        "accounts" => &[("f", Double), ("wb", Int), ("wf", Double)],
        "loose" => &[("f", Double), ("wf", Double), ("wd", Decimal)],
        _ => &[],
    };
    let column = |wild: bool| move |(name, kind): &(&str, Kind)| Column { name: (*name).to_owned(), kind: *kind, wild };
    tame.iter().map(column(false)).chain(wild.iter().map(column(true))).collect()
}

const TEXTS: [&str; 6] = ["''", "'a'", "'ab'", "'Ünïcode ✓'", "'x-1,y-2'", "'A'"];
const PATTERNS: [&str; 5] = ["'a%'", "'%a%'", "'_'", "'%,%'", "'%'"];
const DATES: [&str; 3] = ["DATE '1970-01-01'", "DATE '2001-02-03'", "DATE '1969-06-30'"];
const TIMES: [&str; 3] =
    ["TIMESTAMP '1970-01-01 00:00:00'", "TIMESTAMP '2024-01-01 00:00:30'", "TIMESTAMP '1969-12-31 23:59:45.5'"];
const SPECIAL: [&str; 4] =
    ["CAST('NaN' AS DOUBLE)", "CAST('Infinity' AS DOUBLE)", "CAST('-Infinity' AS DOUBLE)", "CAST('-0.0' AS DOUBLE)"];

impl Generator {
    fn pick(&mut self, from: &[&str]) -> String {
        from.choose(&mut self.rng).copied().unwrap_or_default().to_owned()
    }

    pub(super) fn comparison(&mut self) -> String {
        self.pick(&["=", "<>", "<", "<=", ">", ">="])
    }

    /// A kind that can be computed.
    pub(super) fn kind(&mut self) -> Kind {
        [Int, Int, Double, Decimal, Bool, Text, Text, Date, Time].choose(&mut self.rng).copied().unwrap_or(Int)
    }

    /// `sql` as the type that all expressions of `kind` have.
    pub(super) fn typed(&self, sql: String, kind: Kind) -> String {
        match kind {
            Int => format!("CAST({sql} AS BIGINT)"),
            Double => format!("CAST({sql} AS DOUBLE)"),
            Decimal => format!("CAST({sql} AS DECIMAL(20, 2))"),
            Date => format!("CAST({sql} AS DATE)"),
            _ => sql,
        }
    }

    pub(super) fn literal(&mut self, kind: Kind) -> String {
        match kind {
            Int => self.rng.random_range(-5..20).to_string(),
            Double if self.chance(0.15) => self.pick(&SPECIAL),
            Double => format!("{}e0", f64::from(self.rng.random_range(-40..40)) / 4.0),
            Decimal if is_pending(Pending::DecimalLiterals) => {
                format!("CAST('{}' AS DECIMAL(12, 2))", f64::from(self.rng.random_range(-400..400)) / 4.0)
            }
            Decimal => format!("{:.2}", f64::from(self.rng.random_range(-400..400)) / 4.0),
            Bool => self.pick(&["true", "false", "NULL"]),
            Date => self.pick(&DATES),
            Time => self.pick(&TIMES),
            _ => self.pick(&TEXTS),
        }
    }

    fn columns_of(&mut self, columns: &[Column], kind: Kind, wild: bool) -> Option<String> {
        let of: Vec<&Column> = columns.iter().filter(|c| c.kind == kind && (wild || !c.wild)).collect();
        of.choose(&mut self.rng).map(|c| c.name.clone())
    }

    /// A computed value of a kind, over columns that are not wild.
    pub(super) fn value(&mut self, columns: &[Column], kind: Kind, depth: usize) -> String {
        let leaf = match self.columns_of(columns, kind, false) {
            Some(column) if self.chance(0.85) => column,
            _ => self.literal(kind),
        };
        if depth == 0 || self.chance(0.3) {
            return leaf;
        }
        let d = depth - 1;
        if self.chance(0.3) {
            let (a, b) = (self.value(columns, kind, d), self.value(columns, kind, d));
            return match self.rng.random_range(0..5) {
                0 => format!("coalesce({a}, {b})"),
                1 => format!("nullif({a}, {b})"),
                2 => format!("CASE WHEN {} THEN {a} END", self.condition(columns, d)),
                3 if matches!(kind, Int | Double | Text | Date | Time) => {
                    format!("{}({a}, {b})", self.pick(&["greatest", "least"]))
                }
                _ => format!("CASE WHEN {} THEN {a} ELSE {b} END", self.condition(columns, d)),
            };
        }
        match kind {
            Int => self.integer(columns, d),
            Double => self.double(columns, d),
            Decimal => {
                let (a, b) = (self.value(columns, Decimal, d), self.value(columns, Decimal, d));
                format!("({a} {} {b})", self.pick(&["+", "-"]))
            }
            Bool => self.condition(columns, d),
            Text => self.text(columns, d),
            Date => match self.columns_of(columns, Time, false) {
                Some(time) => format!("CAST({time} AS DATE)"),
                None => leaf,
            },
            Time => {
                let time = self.value(columns, Time, d);
                match self.rng.random_range(0..3) {
                    0 => format!("date_trunc('{}', {time})", self.pick(&["minute", "hour", "day", "month", "year"])),
                    1 => format!("date_bin(INTERVAL '7 seconds', {time})"),
                    _ => format!("({time} + INTERVAL '{}')", self.pick(&["1 day", "3 seconds", "1 month", "-2 hours"])),
                }
            }
            Struct | List | Bytes | Structs => leaf,
        }
    }

    /// Always a BIGINT: elsewhere a literal is an INTEGER.
    fn wide(&mut self, columns: &[Column], depth: usize) -> String {
        let value = self.value(columns, Int, depth);
        format!("CAST({value} AS BIGINT)")
    }

    fn integer(&mut self, columns: &[Column], d: usize) -> String {
        let (a, b) = (self.wide(columns, d), self.wide(columns, d));
        let from = |c: Option<String>, say: fn(&str) -> String, or: &str| c.map_or(or.to_owned(), |c| say(&c));
        match self.rng.random_range(0..12) {
            0..2 => format!("({a} + {b})"),
            2 => format!("({a} - {b})"),
            3 => format!("(({a} % 1000) * ({b} % 1000))"),
            4 => format!("({a} / nullif({b}, 0))"),
            5 => format!("({a} % nullif({b}, 0))"),
            6 => format!("abs({a})"),
            7 => format!("(- {a})"),
            8 => from(self.columns_of(columns, Text, false), |c| format!("length({c})"), &a),
            9 => match self.columns_of(columns, Struct, false) {
                Some(s) if self.chance(0.5) && !is_pending(Pending::BelowNull) => {
                    format!("(CASE WHEN {} THEN {s} END)['a']", self.condition(columns, 0))
                }
                s => from(s, |c| format!("{c}['a']"), &a),
            },
            10 => {
                let list = self.columns_of(columns, List, false);
                let at =
                    if self.chance(0.5) { |c: &str| format!("{c}[1]") } else { |c: &str| format!("array_length({c})") };
                from(list, at, &a)
            }
            // Its values are within a million; what is computed may be anything.
            _ => from(
                columns.iter().find(|c| c.name == "x").map(|c| c.name.clone()),
                |c| format!("CAST({c} AS BIGINT)"),
                &b,
            ),
        }
    }

    fn double(&mut self, columns: &[Column], d: usize) -> String {
        let (a, b) = (self.value(columns, Double, d), self.value(columns, Double, d));
        match self.rng.random_range(0..7) {
            0..2 => format!("({a} + {b})"),
            2 => format!("({a} - {b})"),
            3 => format!("({a} * 2.5e0)"),
            4 if is_pending(Pending::Simplified) => format!("({a} / 4e0)"),
            4 => format!("({a} / {b})"),
            5 => format!("{}({a})", self.pick(&["abs", "floor", "ceil", "-"])),
            _ => {
                let value = self.value(columns, Int, d);
                format!("CAST({value} AS DOUBLE)")
            }
        }
    }

    fn text(&mut self, columns: &[Column], d: usize) -> String {
        let a = self.value(columns, Text, d);
        match self.rng.random_range(0..8) {
            0 => format!("{}({a})", self.pick(&["upper", "lower", "reverse", "trim"])),
            1 => format!("substr({a}, 2, 3)"),
            2 => format!("left({a}, 2)"),
            3 => format!("replace({a}, 'a', 'bb')"),
            4 => {
                let b = self.value(columns, Text, d);
                format!("({a} || {b})")
            }
            5 => match self.columns_of(columns, Struct, false) {
                Some(s) => format!("{s}['t']"),
                None => a,
            },
            6 => format!("CAST({} AS TEXT)", self.wide(columns, d)),
            _ => format!("split_part({a}, ',', 1)"),
        }
    }

    /// A truth value.
    pub(super) fn condition(&mut self, columns: &[Column], depth: usize) -> String {
        if depth > 0 && self.chance(0.45) {
            let (a, b) = (self.condition(columns, depth - 1), self.condition(columns, depth - 1));
            return match self.rng.random_range(0..6) {
                0..2 => format!("({a} AND {b})"),
                2..4 => format!("({a} OR {b})"),
                4 => format!("(NOT {a})"),
                _ => format!("({a} {})", self.pick(&["IS TRUE", "IS NOT TRUE", "IS NULL", "IS UNKNOWN"])),
            };
        }
        let Some(column) = columns.choose(&mut self.rng).cloned() else { return self.literal(Bool) };
        let Column { name, kind, wild } = column;
        let orders = matches!(kind, Int | Double | Decimal | Text | Date | Time);
        match self.rng.random_range(0..8) {
            _ if kind == Bool => format!("({name} {})", self.pick(&["IS TRUE", "IS NOT FALSE", "= true", "IS NULL"])),
            0..3 if orders => {
                let other = if wild { self.literal(kind) } else { self.value(columns, kind, depth.min(1)) };
                let other = if self.chance(0.05) { name.clone() } else { other };
                format!("({name} {} {other})", self.comparison())
            }
            3 if orders => {
                let not = self.pick(&["", "NOT "]);
                let literals: Vec<String> = (0..self.rng.random_range(1..4)).map(|_| self.literal(kind)).collect();
                let null = if self.chance(0.15) { ", NULL" } else { "" };
                format!("({name} {not}IN ({}{null}))", literals.join(", "))
            }
            4 if orders => {
                let (a, b) = (self.literal(kind), self.literal(kind));
                format!("({name} {}BETWEEN {a} AND {b})", self.pick(&["", "NOT "]))
            }
            5 if kind == Text => {
                format!("({name} {} {})", self.pick(&["LIKE", "NOT LIKE", "ILIKE"]), self.pick(&PATTERNS))
            }
            6 if orders => {
                let other = self.literal(kind);
                format!("({name} IS {}DISTINCT FROM {other})", self.pick(&["", "NOT "]))
            }
            _ => format!("({name} IS {}NULL)", self.pick(&["", "NOT "])),
        }
    }

    /// A call of an aggregate: its text, its kind, and whether its result is wild.
    pub(super) fn call(&mut self, columns: &[Column]) -> (String, Kind, bool) {
        let ordered = columns.iter().any(|c| c.name == "id");
        let double = |of: &str| of.to_owned();
        match self.rng.random_range(0..20) {
            0..3 => ("count(*)".to_owned(), Int, false),
            3..5 => {
                let name = columns.choose(&mut self.rng).map_or("1".to_owned(), |c| c.name.clone());
                let distinct = if self.chance(0.6) { "DISTINCT " } else { "" };
                (format!("count({distinct}{name})"), Int, false)
            }
            5..8 => {
                let value = self.wide(columns, 1);
                let distinct = if self.chance(0.2) { "DISTINCT " } else { "" };
                (format!("sum({distinct}{value} % 100000)"), Int, false)
            }
            8 => (format!("avg({})", self.wide(columns, 1)), Double, true),
            9..13 => {
                let of: Vec<&Column> = columns
                    .iter()
                    .filter(|c| matches!(c.kind, Int | Double | Decimal | Text | Date | Time | Bool))
                    .filter(|c| !(is_pending(Pending::NanExtremes) && c.kind == Double && c.wild))
                    .collect();
                match of.choose(&mut self.rng) {
                    Some(c) => (format!("{}({})", self.pick(&["min", "max"]), c.name), c.kind, c.wild),
                    None => ("count(*)".to_owned(), Int, false),
                }
            }
            13 => match self.columns_of(columns, Double, false) {
                Some(x) => {
                    let call = self.pick(&["sum", "avg", "var_samp", "stddev_pop", "median"]);
                    (format!("{call}({x})"), Double, true)
                }
                None => (double("count(*)"), Int, false),
            },
            14 => match self.columns_of(columns, Decimal, false) {
                Some(d) if self.chance(0.5) && !is_pending(Pending::DecimalAverages) => {
                    (format!("avg({d})"), Decimal, true)
                }
                Some(d) => (format!("sum({d})"), Decimal, true),
                None => (double("count(*)"), Int, false),
            },
            15 => {
                let condition = self.condition(columns, 1);
                (format!("{}({condition})", self.pick(&["bool_and", "bool_or"])), Bool, false)
            }
            16 => {
                let value = self.wide(columns, 0);
                (format!("{}({value})", self.pick(&["bit_and", "bit_or", "bit_xor"])), Int, true)
            }
            17 if ordered => {
                let value = self.wide(columns, 0);
                (format!("array_agg({value} ORDER BY id)"), List, false)
            }
            18 if ordered => match self.columns_of(columns, Text, false) {
                Some(text) => (format!("string_agg({text}, ',' ORDER BY id)"), Text, false),
                None => (double("count(*)"), Int, false),
            },
            19 if ordered => {
                let of: Vec<&Column> = columns.iter().collect();
                let call = self.pick(&["first_value", "last_value"]);
                let order = self.pick(&["", " DESC"]);
                match of.choose(&mut self.rng) {
                    Some(c) => (format!("{call}({} ORDER BY id{order})", c.name), c.kind, c.wild),
                    None => (double("count(*)"), Int, false),
                }
            }
            _ => ("count(*)".to_owned(), Int, false),
        }
    }
}
