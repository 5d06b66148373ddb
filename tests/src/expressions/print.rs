//! An expression as text: in our SQL, and in DuckDB's where that can say the same.

use super::grammar::{Expr, Kind};

/// Why something is written otherwise for DuckDB, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What our SQL has.
    pub ours: &'static str,
    /// What DuckDB is given; none where nothing says the same.
    pub duckdb: Option<&'static str>,
    /// Why.
    pub why: &'static str,
}

const fn rule(ours: &'static str, duckdb: Option<&'static str>, why: &'static str) -> Rule {
    Rule { ours, duckdb, why }
}

/// All of them.
pub const RULES: [Rule; 21] = [
    rule("a / b, whole", Some("a // b"), "DuckDB's / of whole numbers is a DOUBLE"),
    rule("a ^ b", Some("xor(a, b)"), "^ is a power in DuckDB"),
    rule(
        "a << b",
        None,
        "DuckDB refuses bits that are shifted out, and negative numbers; we drop them as PostgreSQL does",
    ),
    rule(
        "- a, whole",
        Some("0 - a of its type"),
        "a minus before a constant is a part of it there, so that types differ",
    ),
    rule("CAST(float AS whole)", Some("the same"), "both round, half to even"),
    rule("CAST(decimal AS whole)", Some("the same"), "both round, half away from zero"),
    rule("CAST(text AS whole)", None, "DuckDB takes fractions and exponents in the text, and blanks around it"),
    rule("CAST(float AS DECIMAL)", None, "the last digit is rounded by way of other doubles"),
    rule(
        "CAST(whole or date AS TEXT)",
        Some("the same"),
        "years after 9999 and before 1 are written differently, and none is in the rows",
    ),
    rule(
        "date_bin('…', a)",
        Some("time_bucket(…, a, origin 1970)"),
        "the name; and its own origin is a Monday of 2000",
    ),
    rule("date_bin('1 month', a)", Some("date_trunc('month', a)"), "the same for one month"),
    rule("date_part('dow', a)", Some("date_part('dow', a)"), "Sunday is 0 in both"),
    rule("a AT TIME ZONE 'z'", Some("timezone('z', a)"), "the same, without its binding strength"),
    rule(
        "timestamptz + days or months",
        None,
        "on the clock of the session's zone there; UTC is set, and months differ at year 1",
    ),
    rule("character_length", Some("CAST(length(a) AS INT)"), "the name; a BIGINT there"),
    rule("CAST(date AS TIMESTAMP)", Some("the same"), "dates of the rows are all timestamps"),
    rule("least, greatest of NULL", Some("the same"), "both pass over NULL"),
    rule("BIGINT UNSIGNED", Some("UBIGINT"), "the name"),
    rule("sqrt of a negative number", Some("error(…)"), "NaN there, an error here as in PostgreSQL"),
    rule(
        "computed timestamp AT TIME ZONE",
        None,
        "summers after 2099 are not in our tables of zones; the rows have winters there",
    ),
    rule("CAST(double AS REAL)", None, "beyond the largest REAL it is an error in DuckDB, and infinity here"),
];

/// The expression in our SQL.
pub fn ours(expr: &Expr) -> String {
    let list = |es: &[Expr]| es.iter().map(ours).collect::<Vec<_>>().join(", ");
    match expr {
        Expr::Column(name, _) => (*name).to_owned(),
        Expr::Literal(text, kind) => literal(text, *kind, name(*kind)),
        Expr::Null(kind) => format!("CAST(NULL AS {})", name(*kind)),
        Expr::Infix(op, a, b, _) => format!("({} {op} {})", ours(a), ours(b)),
        Expr::Prefix(op, a, _) => format!("({op} {})", ours(a)),
        Expr::Is(a, what) => format!("({} IS {what})", ours(a)),
        Expr::Call(f, args, _) => format!("{f}({})", list(args)),
        Expr::Cast(a, kind) => format!("CAST({} AS {})", ours(a), name(*kind)),
        Expr::Case(operand, branches, otherwise, _) => {
            case(operand, branches, otherwise, &|e| Ok(ours(e))).unwrap_or_default()
        }
        Expr::In(a, items, negated) => format!("({} {}IN ({}))", ours(a), not(*negated), list(items)),
        Expr::Between(a, b, c, negated) => {
            format!("({} {}BETWEEN {} AND {})", ours(a), not(*negated), ours(b), ours(c))
        }
        Expr::Like(a, pattern, negated, insensitive) => like(&ours(a), pattern, *negated, *insensitive),
        Expr::Plus(a, op, interval, _) => format!("({} {op} INTERVAL '{interval}')", ours(a)),
        Expr::OfTime("date_bin", stride, a, _) => format!("date_bin(INTERVAL '{stride}', {})", ours(a)),
        Expr::OfTime("date_part", part, a, _) => format!("CAST(date_part('{part}', {}) AS INT)", ours(a)),
        Expr::OfTime("AT TIME ZONE", zone, a, _) => format!("({} AT TIME ZONE '{zone}')", ours(a)),
        Expr::OfTime(f, unit, a, _) => format!("{f}('{unit}', {})", ours(a)),
    }
}

/// The expression in DuckDB's SQL, or the rule by which it has none.
pub fn duckdb(expr: &Expr) -> Result<String, &'static Rule> {
    let list = |es: &[Expr]| -> Result<String, &'static Rule> {
        Ok(es.iter().map(duckdb).collect::<Result<Vec<_>, _>>()?.join(", "))
    };
    Ok(match expr {
        Expr::Literal(text, kind) => literal(text, *kind, duckdb_name(*kind)),
        Expr::Null(kind) => format!("CAST(NULL AS {})", duckdb_name(*kind)),
        Expr::Infix("/", a, b, kind) if is_whole(*kind) => format!("({} // {})", duckdb(a)?, duckdb(b)?),
        Expr::Infix("<<", ..) => return Err(&RULES[2]),
        Expr::Infix(op, a, b, _) => format!("({} {op} {})", duckdb(a)?, duckdb(b)?),
        Expr::Prefix("-", a, kind) if is_whole(*kind) => {
            format!("(CAST(0 AS {}) - {})", duckdb_name(*kind), duckdb(a)?)
        }
        Expr::Prefix(op, a, _) => format!("({op} {})", duckdb(a)?),
        Expr::Is(a, what) => match *what {
            "UNKNOWN" => format!("({} IS NULL)", duckdb(a)?),
            "NOT UNKNOWN" => format!("({} IS NOT NULL)", duckdb(a)?),
            "TRUE" => format!("({} IS NOT DISTINCT FROM true)", duckdb(a)?),
            "NOT TRUE" => format!("({} IS DISTINCT FROM true)", duckdb(a)?),
            "FALSE" => format!("({} IS NOT DISTINCT FROM false)", duckdb(a)?),
            "NOT FALSE" => format!("({} IS DISTINCT FROM false)", duckdb(a)?),
            what => format!("({} IS {what})", duckdb(a)?),
        },
        Expr::Call("character_length", args, _) => format!("CAST(length({}) AS INT)", list(args)?),
        Expr::Call("sqrt", args, _) => {
            let a = list(args)?;
            format!("CASE WHEN {a} < 0 THEN error('negative') ELSE sqrt({a}) END")
        }
        Expr::Call(f, args, _) => format!("{f}({})", list(args)?),
        Expr::Cast(a, kind) => cast(a, *kind)?,
        Expr::Case(operand, branches, otherwise, _) => case(operand, branches, otherwise, &duckdb)?,
        Expr::In(a, items, negated) => format!("({} {}IN ({}))", duckdb(a)?, not(*negated), list(items)?),
        Expr::Between(a, b, c, negated) => {
            format!("({} {}BETWEEN {} AND {})", duckdb(a)?, not(*negated), duckdb(b)?, duckdb(c)?)
        }
        Expr::Like(a, pattern, negated, insensitive) => {
            format!("{} ESCAPE '\\')", like(&duckdb(a)?, pattern, *negated, *insensitive).trim_end_matches(')'))
        }
        Expr::Plus(_, _, _, Kind::Zoned) => return Err(&RULES[13]),
        Expr::Plus(a, op, interval, _) => format!("({} {op} INTERVAL '{interval}')", duckdb(a)?),
        Expr::OfTime("date_bin", "1 month", a, _) => format!("CAST(date_trunc('month', {}) AS TIMESTAMP)", duckdb(a)?),
        Expr::OfTime("date_bin", stride, a, _) => {
            format!("time_bucket(INTERVAL '{stride}', {}, TIMESTAMP '1970-01-01 00:00:00')", duckdb(a)?)
        }
        Expr::OfTime("date_part", part, a, _) => format!("CAST(date_part('{part}', {}) AS INT)", duckdb(a)?),
        Expr::OfTime("AT TIME ZONE", _, a, _) if !matches!(**a, Expr::Column(..) | Expr::Literal(..)) => {
            return Err(&RULES[19]);
        }
        Expr::OfTime("AT TIME ZONE", zone, a, _) => format!("timezone('{zone}', {})", duckdb(a)?),
        Expr::OfTime(f, unit, a, _) => format!("CAST({f}('{unit}', {}) AS TIMESTAMP)", duckdb(a)?),
        Expr::Column(name, _) => (*name).to_owned(),
    })
}

fn is_whole(kind: Kind) -> bool {
    matches!(kind, Kind::Small | Kind::Int | Kind::Big | Kind::Unsigned)
}

fn cast(a: &Expr, to: Kind) -> Result<String, &'static Rule> {
    let from = a.kind();
    let (text, to_name) = (duckdb(a)?, duckdb_name(to));
    match (from, to) {
        (Kind::Text, to) if is_whole(to) => Err(&RULES[6]),
        (Kind::Double, Kind::Real) => Err(&RULES[20]),
        (Kind::Real | Kind::Double, Kind::Decimal) => Err(&RULES[7]),
        _ => Ok(format!("CAST({text} AS {to_name})")),
    }
}

type Write<'a> = &'a dyn Fn(&Expr) -> Result<String, &'static Rule>;

fn case(
    operand: &Option<Box<Expr>>,
    branches: &[(Expr, Expr)],
    otherwise: &Option<Box<Expr>>,
    write: Write<'_>,
) -> Result<String, &'static Rule> {
    let mut text = "CASE".to_owned();
    if let Some(operand) = operand {
        text += &format!(" {}", write(operand)?);
    }
    for (when, then) in branches {
        text += &format!(" WHEN {} THEN {}", write(when)?, write(then)?);
    }
    if let Some(otherwise) = otherwise {
        text += &format!(" ELSE {}", write(otherwise)?);
    }
    Ok(text + " END")
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn like(text: &str, pattern: &str, negated: bool, insensitive: bool) -> String {
    let op = if insensitive { "ILIKE" } else { "LIKE" };
    format!("({text} {}{op} '{pattern}')", not(negated))
}

fn literal(text: &str, kind: Kind, name: &str) -> String {
    match kind {
        Kind::Bool => text.to_owned(),
        Kind::Big if !text.starts_with('-') => text.to_owned(),
        Kind::Double if text.starts_with(|c: char| c.is_ascii_digit()) => text.to_owned(),
        Kind::Text => format!("'{}'", text.replace('\'', "''")),
        Kind::Zoned => format!("CAST('{text}+00' AS {name})"),
        _ => format!("CAST('{text}' AS {name})"),
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOLEAN",
        Kind::Small => "SMALLINT",
        Kind::Int => "INT",
        Kind::Big => "BIGINT",
        Kind::Unsigned => "BIGINT UNSIGNED",
        Kind::Real => "REAL",
        Kind::Double => "DOUBLE",
        Kind::Decimal => "DECIMAL(12, 2)",
        Kind::Text => "TEXT",
        Kind::Date => "DATE",
        Kind::Stamp => "TIMESTAMP",
        Kind::Zoned => "TIMESTAMPTZ",
    }
}

fn duckdb_name(kind: Kind) -> &'static str {
    if kind == Kind::Unsigned { "UBIGINT" } else { name(kind) }
}
