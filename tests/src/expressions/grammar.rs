//! Random expressions of every type, over the columns of [`super::rows`].
//!
//! Parts are used again within an expression, and constants come from short lists, so that what rules look for
//! (`a OR NOT a`, `i IN (1) AND i IN (2)`, `x ^ x`) is met often.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `BOOLEAN`.
    Bool,
    /// `SMALLINT`.
    Small,
    /// `INT`.
    Int,
    /// `BIGINT`.
    Big,
    /// `BIGINT UNSIGNED`.
    Unsigned,
    /// `REAL`.
    Real,
    /// `DOUBLE`.
    Double,
    /// `DECIMAL(12, 2)`.
    Decimal,
    /// `TEXT`.
    Text,
    /// `DATE`.
    Date,
    /// `TIMESTAMP`.
    Stamp,
    /// `TIMESTAMPTZ`.
    Zoned,
}

use Kind::{Big, Bool, Date, Decimal, Double, Int, Real, Small, Stamp, Text, Unsigned, Zoned};

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 12] = [Bool, Small, Int, Big, Unsigned, Real, Double, Decimal, Text, Date, Stamp, Zoned];

    /// Two columns of each kind.
    pub fn columns(self) -> [&'static str; 2] {
        match self {
            Bool => ["b1", "b2"],
            Small => ["s1", "s2"],
            Int => ["i1", "i2"],
            Big => ["l1", "l2"],
            Unsigned => ["u1", "u2"],
            Real => ["r1", "r2"],
            Double => ["x1", "x2"],
            Decimal => ["d1", "d2"],
            Text => ["t1", "t2"],
            Date => ["day1", "day2"],
            Stamp => ["at1", "at2"],
            Zoned => ["z1", "z2"],
        }
    }

    fn literals(self) -> &'static [&'static str] {
        match self {
            Bool => &["true", "false"],
            Small => &["0", "1", "2", "-1", "32767", "-32768"],
            Int => &["0", "1", "2", "3", "-1", "2147483647"],
            Big => &["0", "1", "2", "3", "7", "-1", "9223372036854775807"],
            Unsigned => &["0", "1", "2", "18446744073709551615"],
            Real => &["0e0", "-0e0", "1e0", "1.5e0", "NaN", "Infinity"],
            Double => &["0e0", "-0e0", "1e0", "2e0", "1.5e0", "-2.25e0", "NaN", "Infinity", "-Infinity", "1e300"],
            Decimal => &["0.00", "1.00", "1.25", "-3.50", "9999999999.99"],
            Text => &["", "a", "b", "ab", "A", "1", "x-1,y-2", "  padded  ", "Ünï", "%", "a_b"],
            Date => &["1970-01-01", "2024-02-29", "1969-12-31", "2026-03-29", "9999-12-31"],
            Stamp | Zoned => {
                &["1970-01-01 00:00:00", "2026-03-29 02:30:00", "2024-02-29 23:59:59.999999", "3000-01-01 00:00:00"]
            }
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Small | Int | Big)
    }

    fn is_float(self) -> bool {
        matches!(self, Real | Double)
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A column.
    Column(&'static str, Kind),
    /// A constant, as it is written between quotes.
    Literal(&'static str, Kind),
    /// NULL of a type.
    Null(Kind),
    /// `a op b`.
    Infix(&'static str, Box<Expr>, Box<Expr>, Kind),
    /// `NOT a`, `- a`.
    Prefix(&'static str, Box<Expr>, Kind),
    /// `a IS NULL` and its like.
    Is(Box<Expr>, &'static str),
    /// A function.
    Call(&'static str, Vec<Expr>, Kind),
    /// `CAST(a AS kind)`.
    Cast(Box<Expr>, Kind),
    /// `CASE [a] WHEN b THEN c … [ELSE d] END`.
    Case(Option<Box<Expr>>, Vec<(Expr, Expr)>, Option<Box<Expr>>, Kind),
    /// `a [NOT] IN (…)`.
    In(Box<Expr>, Vec<Expr>, bool),
    /// `a [NOT] BETWEEN b AND c`.
    Between(Box<Expr>, Box<Expr>, Box<Expr>, bool),
    /// `a [NOT] LIKE pattern`, or ILIKE.
    Like(Box<Expr>, &'static str, bool, bool),
    /// `a + INTERVAL '…'`, or minus.
    Plus(Box<Expr>, &'static str, &'static str, Kind),
    /// A function of a word and a time: `date_trunc('day', a)`, `date_bin(INTERVAL '…', a)`, `date_part('year', a)`.
    OfTime(&'static str, &'static str, Box<Expr>, Kind),
}

impl Expr {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Expr::Column(_, kind) | Expr::Literal(_, kind) | Expr::Null(kind) => *kind,
            Expr::Infix(.., kind) | Expr::Prefix(.., kind) | Expr::Call(.., kind) => *kind,
            Expr::Cast(_, kind) | Expr::Case(.., kind) | Expr::Plus(.., kind) | Expr::OfTime(.., kind) => *kind,
            Expr::Is(..) | Expr::In(..) | Expr::Between(..) | Expr::Like(..) => Bool,
        }
    }
}

/// Makes one expression after another from one seed.
pub struct Grammar {
    rng: StdRng,
    /// Parts of the expression at hand.
    parts: Vec<Expr>,
}

impl Grammar {
    /// A grammar that draws from `rng`.
    pub fn new(rng: StdRng) -> Self {
        Grammar { rng, parts: vec![] }
    }

    /// The next expression: every third is a condition.
    pub fn draw(&mut self) -> Expr {
        self.parts.clear();
        let kind = if self.chance(0.35) { Bool } else { self.pick(&Kind::ALL) };
        let depth = self.rng.random_range(1..=4);
        self.expr(kind, depth)
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.rng.random_range(0..from.len());
        from[at]
    }

    fn boxed(&mut self, kind: Kind, depth: usize) -> Box<Expr> {
        Box::new(self.expr(kind, depth))
    }

    fn expr(&mut self, kind: Kind, depth: usize) -> Expr {
        if self.chance(0.3) {
            let same: Vec<&Expr> = self.parts.iter().filter(|p| p.kind() == kind).collect();
            if let Some(part) = same.choose(&mut self.rng) {
                return (*part).clone();
            }
        }
        let expr = match depth {
            0 => self.leaf(kind),
            _ if self.chance(0.15) => self.any(kind, depth - 1),
            _ => match kind {
                Bool => self.condition(depth - 1),
                Small | Int | Big | Unsigned => self.whole(kind, depth - 1),
                Real | Double | Decimal => self.number(kind, depth - 1),
                Text => self.text(depth - 1),
                Date | Stamp | Zoned => self.time(kind, depth - 1),
            },
        };
        self.parts.push(expr.clone());
        expr
    }

    fn leaf(&mut self, kind: Kind) -> Expr {
        match self.rng.random_range(0..20) {
            0 => Expr::Null(kind),
            1..=6 => self.literal(kind),
            _ => {
                let columns = kind.columns();
                Expr::Column(self.pick(&columns), kind)
            }
        }
    }

    fn literal(&mut self, kind: Kind) -> Expr {
        Expr::Literal(self.pick(kind.literals()), kind)
    }

    /// What there is for every type.
    fn any(&mut self, kind: Kind, depth: usize) -> Expr {
        match self.rng.random_range(0..5) {
            0 => Expr::Call("coalesce", vec![self.expr(kind, depth), self.expr(kind, depth)], kind),
            1 => Expr::Call("nullif", vec![self.expr(kind, depth), self.expr(kind, depth)], kind),
            2 if kind != Bool => {
                let name = self.pick(&["greatest", "least"]);
                Expr::Call(name, vec![self.expr(kind, depth), self.expr(kind, depth)], kind)
            }
            3 => {
                let of = self.pick(&[Int, Big, Double, Text, Bool]);
                let operand = self.boxed(of, depth.min(1));
                let branches = 0..self.rng.random_range(1..=3);
                let branches = branches.map(|_| (self.expr(of, 0), self.expr(kind, depth.min(1)))).collect();
                let otherwise = self.chance(0.6).then(|| self.boxed(kind, depth.min(1)));
                Expr::Case(Some(operand), branches, otherwise, kind)
            }
            _ => {
                let branches = 0..self.rng.random_range(1..=3);
                let branches = branches.map(|_| (self.expr(Bool, depth), self.expr(kind, depth))).collect();
                let otherwise = self.chance(0.6).then(|| self.boxed(kind, depth));
                Expr::Case(None, branches, otherwise, kind)
            }
        }
    }

    fn condition(&mut self, depth: usize) -> Expr {
        match self.rng.random_range(0..14) {
            0..=3 => {
                let op = self.pick(&["AND", "OR"]);
                Expr::Infix(op, self.boxed(Bool, depth), self.boxed(Bool, depth), Bool)
            }
            4 => Expr::Prefix("NOT", self.boxed(Bool, depth), Bool),
            5..=7 => self.comparison(depth),
            8..=9 => self.list(depth),
            10 => {
                let kind = self.pick(&[Int, Big, Double, Real, Decimal, Text, Date, Stamp]);
                let negated = self.chance(0.4);
                Expr::Between(self.boxed(kind, depth), self.boxed(kind, 0), self.boxed(kind, 0), negated)
            }
            11 => {
                let pattern = self.pick(&["a", "%", "%%", "a%", "%b", "_", "a_b", "%a%", "", "a\\_b"]);
                let (negated, insensitive) = (self.chance(0.3), self.chance(0.2));
                Expr::Like(self.boxed(Text, depth.min(1)), pattern, negated, insensitive)
            }
            12 => {
                let kind = self.pick(&Kind::ALL);
                Expr::Is(self.boxed(kind, depth), self.pick(&["NULL", "NOT NULL"]))
            }
            _ => {
                let what = self.pick(&["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN"]);
                Expr::Is(self.boxed(Bool, depth), what)
            }
        }
    }

    fn comparison(&mut self, depth: usize) -> Expr {
        let ops = ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"];
        let op = self.pick(&ops);
        let left = self.pick(&Kind::ALL);
        let right = match left {
            // Numbers of other types, and dates beside times: what coercion makes of them.
            k if (k.is_whole() || k == Double) && self.chance(0.4) => self.pick(&[Small, Int, Big, Double]),
            Stamp if self.chance(0.3) => Date,
            k => k,
        };
        let (left, right) = (self.boxed(left, depth), self.boxed(right, depth.min(1)));
        Expr::Infix(op, left, right, Bool)
    }

    fn list(&mut self, depth: usize) -> Expr {
        let kind = self.pick(&Kind::ALL);
        let operand = if self.chance(0.7) { self.boxed(kind, 0) } else { self.boxed(kind, depth) };
        let items = 0..self.rng.random_range(1..=6);
        let items = items.map(|_| match self.rng.random_range(0..12) {
            0 => Expr::Null(kind),
            1 => self.expr(kind, 0),
            _ => self.literal(kind),
        });
        let items = items.collect();
        Expr::In(operand, items, self.chance(0.4))
    }

    fn whole(&mut self, kind: Kind, depth: usize) -> Expr {
        match self.rng.random_range(0..10) {
            0..=2 => {
                let op = self.pick(&["+", "-", "*", "/", "%"]);
                Expr::Infix(op, self.boxed(kind, depth), self.boxed(kind, depth.min(1)), kind)
            }
            3..=5 => {
                let op = self.pick(&["&", "|", "<<", ">>"]);
                let right = match op {
                    "<<" | ">>" => Box::new(Expr::Literal(self.pick(&["0", "1", "3"]), kind)),
                    _ => self.boxed(kind, depth),
                };
                Expr::Infix(op, self.boxed(kind, depth), right, kind)
            }
            6 if kind != Unsigned => Expr::Prefix("-", self.boxed(kind, depth), kind),
            7 if kind == Int => Expr::Call("character_length", vec![self.expr(Text, depth)], kind),
            7 if kind == Int => self.part(depth),
            8 if kind != Unsigned => {
                let from = self.pick(&[Bool, Small, Int, Big, Double, Text, Decimal]);
                Expr::Cast(self.boxed(from, depth.min(1)), kind)
            }
            _ => self.leaf(kind),
        }
    }

    fn part(&mut self, depth: usize) -> Expr {
        let part = self.pick(&["year", "month", "day", "hour", "minute", "dow", "doy", "week", "quarter"]);
        Expr::OfTime("date_part", part, self.boxed(Stamp, depth.min(1)), Int)
    }

    fn number(&mut self, kind: Kind, depth: usize) -> Expr {
        match self.rng.random_range(0..8) {
            0..=2 => {
                let ops: &[&str] = if kind.is_float() { &["+", "-", "*", "/"] } else { &["+", "-"] };
                let op = self.pick(ops);
                let expr = Expr::Infix(op, self.boxed(kind, depth), self.boxed(kind, depth.min(1)), kind);
                // A sum of decimals has another precision.
                if kind == Decimal { Expr::Cast(Box::new(expr), kind) } else { expr }
            }
            3 => Expr::Prefix("-", self.boxed(kind, depth), kind),
            4 if kind.is_float() => {
                let name = self.pick(&["abs", "floor", "ceil", "abs", "sqrt"]);
                Expr::Call(name, vec![self.expr(kind, depth)], kind)
            }
            5 => {
                let from = self.pick(&[Small, Int, Big, Real, Double, Decimal]);
                Expr::Cast(self.boxed(from, depth.min(1)), kind)
            }
            _ => self.leaf(kind),
        }
    }

    fn text(&mut self, depth: usize) -> Expr {
        match self.rng.random_range(0..9) {
            0..=1 => Expr::Infix("||", self.boxed(Text, depth), self.boxed(Text, depth.min(1)), Text),
            2..=3 => {
                let name = self.pick(&["upper", "lower", "trim", "reverse", "ltrim"]);
                Expr::Call(name, vec![self.expr(Text, depth)], Text)
            }
            4 => {
                let length = Expr::Literal(self.pick(&["0", "1", "2", "3"]), Big);
                let name = self.pick(&["left", "right"]);
                Expr::Call(name, vec![self.expr(Text, depth), length], Text)
            }
            5 => {
                let name = self.pick(&["concat", "replace"]);
                let args = (0..3).map(|_| self.expr(Text, depth.min(1))).collect();
                Expr::Call(name, args, Text)
            }
            6 => {
                let args = vec![self.literal(Text), self.expr(Text, depth), self.expr(Text, depth.min(1))];
                Expr::Call("concat_ws", args, Text)
            }
            7 => {
                let from = self.pick(&[Bool, Small, Int, Big, Date, Decimal]);
                Expr::Cast(self.boxed(from, depth.min(1)), Text)
            }
            _ => self.leaf(Text),
        }
    }

    fn time(&mut self, kind: Kind, depth: usize) -> Expr {
        let interval = |s: &mut Self| s.pick(&["1 day", "1 month", "1 hour", "90 minutes", "14 months", "1 second"]);
        match (kind, self.rng.random_range(0..6)) {
            (Date, 0..=1) => Expr::Cast(self.boxed(Stamp, depth.min(1)), Date),
            (Stamp, 0) => Expr::Cast(self.boxed(Date, depth.min(1)), Stamp),
            (Stamp, 1) => {
                let unit = self.pick(&["second", "minute", "hour", "day", "week", "month", "quarter", "year"]);
                Expr::OfTime("date_trunc", unit, self.boxed(Stamp, depth), Stamp)
            }
            (Stamp, 2) => {
                let stride = self.pick(&["1 day", "15 minutes", "7 seconds", "1 month", "36 hours"]);
                Expr::OfTime("date_bin", stride, self.boxed(Stamp, depth), Stamp)
            }
            (Stamp, 3) => {
                let op = self.pick(&["+", "-"]);
                Expr::Plus(self.boxed(Stamp, depth), op, interval(self), Stamp)
            }
            (Zoned, 0..=1) => Expr::Cast(self.boxed(Stamp, depth.min(1)), Zoned),
            (Zoned, 2) => {
                let op = self.pick(&["+", "-"]);
                Expr::Plus(self.boxed(Zoned, depth), op, interval(self), Zoned)
            }
            (Zoned, 3) => {
                let zone = self.pick(&["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"]);
                // The clock of a zone, back as an instant.
                let there = Expr::OfTime("AT TIME ZONE", zone, self.boxed(Stamp, depth.min(1)), Zoned);
                Expr::Cast(Box::new(there), Zoned)
            }
            _ => self.leaf(kind),
        }
    }
}
