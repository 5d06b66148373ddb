//! How a query is said in DuckDB's SQL.
//!
//! DuckDB reads the text of the query itself, so that parsing, types and planning are checked as well. Where it
//! legitimately sees something otherwise, a rule of `RULES` says what is written instead, and why. A query
//! with something that DuckDB does not know fails until it has a rule; nothing is skipped in silence.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    TableFactor, VisitMut, VisitorMut,
};

use crate::Result;
use crate::as_of::{is_of_rows, lateral};
use crate::first::first_rows;
use crate::raw::{raw, raw_table};

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// DuckDB's SQL.
    Sql(String),
    /// It cannot be said, for this reason.
    Unsaid(&'static str),
}

/// What is written instead.
enum Way {
    /// A setting or a definition, run before all queries.
    Start(&'static str),
    /// A macro `ms_NAME` with this definition, which calls of function NAME become.
    Macro(&'static str, &'static str),
    /// Calls of a function, each with its own text.
    Call(&'static str, fn(&Function) -> Option<String>),
    /// Any other expression.
    Shape(fn(&Expr) -> Option<String>),
    /// A function that DuckDB has nothing for.
    #[allow(dead_code, reason = "none is left, and the next one should find its place")]
    Unsaid(&'static str),
}

struct Rule {
    why: &'static str,
    way: Way,
}

const fn rule(way: Way, why: &'static str) -> Rule {
    Rule { why, way }
}

/// All differences. Window functions, which DuckDB does not have, are in [`windows`].
const RULES: &[Rule] = &[
    rule(Way::Start("SET TimeZone = 'UTC'"), "TIMESTAMPTZ is counted and shown in UTC here"),
    rule(Way::Start("SET threads = 1"), "the tests of a run share the cores"),
    rule(
        Way::Start("SET default_null_order = 'nulls_last_on_asc_first_on_desc'"),
        "nulls are the largest here, as in PostgreSQL; there they come last either way",
    ),
    rule(
        Way::Start("CREATE MACRO ms_div(a BIGINT, b BIGINT) AS a // b, (a DOUBLE, b DOUBLE) AS a / b"),
        "/ of integers is an integer here, as in PostgreSQL; there it is a DOUBLE",
    ),
    rule(Way::Shape(division), "/ of integers is an integer here, as in PostgreSQL; there it is a DOUBLE"),
    rule(Way::Shape(quoted), "a keyword there"),
    rule(Way::Shape(bytes), "a cast of text to bytes reads escapes there; here it takes the bytes of its UTF-8"),
    rule(Way::Shape(matches), "~ finds the pattern anywhere, as in PostgreSQL; there the whole text must match"),
    rule(
        Way::Macro("date_bin", "(i, t) AS time_bucket(i, t, TIMESTAMP '1970-01-01')"),
        "another name; its buckets are counted from a Monday in 2000 unless told otherwise",
    ),
    rule(
        Way::Macro(
            "initcap",
            "(s) AS array_to_string(list_transform(regexp_extract_all(s, '[\\p{L}\\p{N}]+|[^\\p{L}\\p{N}]+'), \
             lambda w: upper(w[1]) || lower(w[2:])), '')",
        ),
        "there is no initcap",
    ),
    rule(Way::Macro("signum", "(x) AS sign(x)"), "another name"),
    rule(Way::Macro("to_char", "(t, f) AS strftime(t, f)"), "another name"),
    rule(Way::Macro("to_timestamp", "(s) AS make_timestamp(s * 1000000)"), "a TIMESTAMP here, a TIMESTAMPTZ there"),
    rule(Way::Macro("encode", "(b, f) AS lower(hex(b))"), "encode(text) there makes UTF-8; only 'hex' is written here"),
    rule(Way::Macro("to_hex", "(x) AS lower(hex(x))"), "capital digits there"),
    rule(Way::Macro("regexp_like", "(s, p) AS regexp_matches(s, p)"), "another name"),
    rule(Way::Call("regexp_match", groups), "there is no list of the groups of the first match"),
    rule(Way::Call("make_array", |f| Some(format!("[{}]", arguments(f).join(", ")))), "another way to write it"),
    rule(Way::Call("named_struct", named_struct), "another way to write it"),
    rule(Way::Call("first_value", |f| renamed(f, "first")), "first_value is a window function only"),
    rule(Way::Call("last_value", |f| renamed(f, "last")), "last_value is a window function only"),
    rule(Way::Call("nth_value", nth), "nth_value is a window function only"),
];

/// What DuckDB runs before all queries.
pub fn set_up() -> Vec<String> {
    let run = |rule: &Rule| match rule.way {
        Way::Start(sql) => Some(sql.to_owned()),
        Way::Macro(name, body) => Some(format!("CREATE MACRO ms_{name}{body}")),
        _ => None,
    };
    RULES.iter().filter_map(run).collect()
}

/// `query` in DuckDB's SQL.
pub fn rewrite(query: &ast::Query) -> Result<Asked> {
    let mut query = query.clone();
    match query.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(Asked::Sql(query.to_string())),
        ControlFlow::Break(Ok(reason)) => Ok(Asked::Unsaid(reason)),
        ControlFlow::Break(Err(e)) => Err(e.into()),
    }
}

/// Goes from the leaves up: what a rule sees below it is DuckDB's already.
struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Result<&'static str, String>;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let name = match expr {
            Expr::Function(f) => Some(f.name.to_string().to_lowercase()),
            _ => None,
        };
        for rule in RULES {
            let text = match (&rule.way, &*expr) {
                (Way::Unsaid(function), _) if name.as_deref() == Some(function) => {
                    return ControlFlow::Break(Ok(rule.why));
                }
                (Way::Macro(function, _), Expr::Function(f)) if name.as_deref() == Some(function) => {
                    renamed(f, &format!("ms_{function}"))
                }
                (Way::Call(function, say), Expr::Function(f)) if name.as_deref() == Some(function) => say(f),
                (Way::Shape(say), expr) => say(expr),
                _ => None,
            };
            if let Some(text) = text {
                *expr = Expr::Identifier(raw(text));
                break;
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Self::Break> {
        match first_rows(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(Ok(reason)),
        }
    }

    fn post_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Self::Break> {
        match select.from.iter_mut().flat_map(|table| &mut table.joins).try_for_each(lateral) {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(Ok(reason)),
        }
    }

    fn post_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Self::Break> {
        // In batch now is when the query runs.
        if let TableFactor::Table { version, .. } = table {
            version.take_if(|version| !is_of_rows(version));
        }
        if has_longest(table) {
            return ControlFlow::Break(Ok("where a session is cut depends on where it was cut before"));
        }
        match windows(table) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(sql)) => {
                let alias = match table {
                    TableFactor::Table { alias, .. } | TableFactor::TableFunction { alias, .. } => alias.take(),
                    _ => None,
                };
                *table = raw_table(sql, alias);
                ControlFlow::Continue(())
            }
            Err(e) => ControlFlow::Break(Err(e.to_string())),
        }
    }
}

fn division(expr: &Expr) -> Option<String> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::Divide, right } => {
            let (left, right) = (left.to_string(), right.to_string());
            // Which macro it is cannot be told there before an aggregate has its type; // differs for x / 0e0 only.
            let aggregates = ["sum(", "count(", "avg(", "min(", "max("];
            let typed = !aggregates.iter().any(|a| left.contains(a) || right.contains(a));
            Some(if typed { format!("ms_div({left}, {right})") } else { format!("({left} // {right})") })
        }
        _ => None,
    }
}

fn quoted(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(Ident { value, quote_style: None, .. }) if value == "at" => Some("\"at\"".to_owned()),
        _ => None,
    }
}

fn bytes(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Cast { expr, data_type: DataType::Bytea, .. } => Some(format!("encode({expr})")),
        _ => None,
    }
}

fn matches(expr: &Expr) -> Option<String> {
    let Expr::BinaryOp { left, op, right } = expr else { return None };
    let (not, options) = match op {
        BinaryOperator::PGRegexMatch => ("", ""),
        BinaryOperator::PGRegexIMatch => ("", ", 'i'"),
        BinaryOperator::PGRegexNotMatch => ("NOT ", ""),
        BinaryOperator::PGRegexNotIMatch => ("NOT ", ", 'i'"),
        _ => return None,
    };
    Some(format!("({not}regexp_matches({left}, {right}{options}))"))
}

fn arguments(function: &Function) -> Vec<String> {
    match &function.args {
        FunctionArguments::List(list) => list.args.iter().map(ToString::to_string).collect(),
        _ => vec![],
    }
}

fn renamed(function: &Function, name: &str) -> Option<String> {
    let mut function = function.clone();
    function.name = ObjectName::from(vec![raw(name.to_owned())]);
    Some(function.to_string())
}

fn named_struct(function: &Function) -> Option<String> {
    let arguments = arguments(function);
    let fields: Vec<String> = arguments.chunks(2).map(|pair| pair.join(": ")).collect();
    Some(format!("{{{}}}", fields.join(", ")))
}

fn groups(function: &Function) -> Option<String> {
    let arguments = arguments(function);
    let [text, pattern] = arguments.as_slice() else { return None };
    let group = |i| format!("regexp_extract({text}, {pattern}, {i})");
    let all: Vec<String> = (1..=pattern.matches('(').count()).map(group).collect();
    Some(format!("CASE WHEN regexp_matches({text}, {pattern}) THEN [{}] END", all.join(", ")))
}

/// `nth_value(e, n ORDER BY o)` is `(list(e ORDER BY o))[n]`.
fn nth(function: &Function) -> Option<String> {
    let mut list = function.clone();
    let FunctionArguments::List(args) = &mut list.args else { return None };
    let n = args.args.pop()?;
    Some(format!("({})[{n}]", renamed(&list, "list")?))
}

/// A window function where a table stands, as a subquery that gives each row once for each of its windows. A time
/// beyond what is countable is in no window.
fn windows(table: &TableFactor) -> Result<Option<String>> {
    let (name, args) = match table {
        TableFactor::Table { name, args: Some(args), .. } => (name, &args.args),
        TableFactor::TableFunction { expr: Expr::Function(f), .. } => match &f.args {
            FunctionArguments::List(list) => (&f.name, &list.args),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let names: &[&str] = match name.to_string().to_lowercase().as_str() {
        "tumble" => &["data", "timecol", "size", "offset"],
        "hop" => &["data", "timecol", "slide", "size", "offset"],
        "cumulate" => &["data", "timecol", "step", "size", "offset"],
        "session" => &["data", "timecol", "gap", "partition", "max"],
        _ => return Ok(None),
    };
    let mut values: Vec<Option<String>> = vec![None; names.len()];
    for (position, arg) in args.iter().enumerate() {
        let (position, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(position), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (names.iter().position(|n| *n == name.value.to_lowercase()), value)
            }
            _ => return Err(format!("{arg} is no argument of a window function").into()),
        };
        let slot = position.and_then(|p| values.get_mut(p)).ok_or_else(|| format!("{arg} has no place in {name}"))?;
        *slot = Some(match value {
            Expr::Prefixed { value, .. } => value.to_string(),
            Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("descriptor") => arguments(f).join(", "),
            value => value.to_string(),
        });
    }
    let get = |n: &str| names.iter().position(|name| *name == n).and_then(|i| values[i].clone());
    let need = |n: &str| get(n).ok_or_else(|| format!("{name} without {n}"));
    if names.contains(&"gap") {
        return Ok(Some(sessions(&need("data")?, &need("timecol")?, &need("gap")?, get("partition").as_deref())));
    }
    let (data, time, size) = (need("data")?, need("timecol")?, need("size")?);
    let offset = get("offset").map_or("0".to_owned(), |o| format!("epoch_us({o})"));
    let step = get("slide").or(get("step")).unwrap_or_else(|| size.clone());
    let (list, start, end) = if size.contains("month") || size.contains("year") {
        let months = |i: &str| format!("(datepart('year', {i}) * 12 + datepart('month', {i}))");
        let (step, size) = (months(&step), months(&size));
        let shifted = shifted(&time, &offset);
        let month = format!("(year({shifted}) - 1970) * 12 + month({shifted}) - 1");
        let bound = |m: &str| {
            format!("to_microseconds({offset}) + date_add(TIMESTAMP '1970-01-01', to_months(({m})::INTEGER))")
        };
        (series(&month, &step, &size, "0"), bound("__w"), bound(&format!("__w + {size}")))
    } else {
        let micros = |i: &str| format!("epoch_us({i})");
        let (at, step, size) = (micros(&time), micros(&step), micros(&size));
        if get("step").is_some() {
            // The ends of the windows that grow from the start; all have its start.
            let start = format!("({})", floor(&at, &size, &offset));
            let list = format!("generate_series({} + {step}, {start} + {size}, {step})", floor(&at, &step, &start));
            let end = "make_timestamp(__w)".to_owned();
            (list, format!("make_timestamp({})", floor("__w - 1", &size, &offset)), end)
        } else {
            let end = format!("make_timestamp(__w + {size})");
            (series(&at, &step, &size, &offset), "make_timestamp(__w)".to_owned(), end)
        }
    };
    let most = i64::MAX / 4;
    Ok(Some(format!(
        "(SELECT * EXCLUDE (__w), {start} AS window_start, {end} AS window_end FROM (SELECT __s.*, unnest({list}) AS __w \
         FROM {data} AS __s WHERE {time} BETWEEN make_timestamp(-{most}) AND make_timestamp({most})))"
    )))
}

/// A `SESSION`: where a row comes a gap or more after the one before another begins.
fn sessions(data: &str, time: &str, gap: &str, partition: Option<&str>) -> String {
    let by = partition.map_or("NULL", |p| p.trim_start_matches('(').trim_end_matches(')'));
    let most = i64::MAX / 4;
    format!(
        "(SELECT * EXCLUDE (__n, __i), min({time}) OVER w AS window_start, max({time}) OVER w + {gap} AS window_end FROM \
         (SELECT *, sum(__n) OVER (PARTITION BY {by} ORDER BY {time}) AS __i FROM \
         (SELECT __s.*, CASE WHEN {time} < lag({time}) OVER (PARTITION BY {by} ORDER BY {time}) + {gap} THEN 0 ELSE 1 END AS __n \
         FROM {data} AS __s WHERE {time} BETWEEN make_timestamp(-{most}) AND make_timestamp({most}))) \
         WINDOW w AS (PARTITION BY {by}, __i))"
    )
}

/// Whether it is a `SESSION` with a longest length.
fn has_longest(table: &TableFactor) -> bool {
    let args = match table {
        TableFactor::Table { args: Some(args), .. } => &args.args,
        _ => return false,
    };
    args.iter().any(|arg| matches!(arg, FunctionArg::Named { name, .. } if name.value.eq_ignore_ascii_case("max")))
}

fn shifted(time: &str, offset: &str) -> String {
    format!("({time} - to_microseconds({offset}))")
}

/// The largest multiple of `step` from `offset` on that is not above `at`; all of them whole numbers.
fn floor(at: &str, step: &str, offset: &str) -> String {
    format!("({at} - ((({at}) - {offset}) % {step} + {step}) % {step})")
}

/// The starts of all windows that hold `at`: those in `(at - size, at]`.
fn series(at: &str, step: &str, size: &str, offset: &str) -> String {
    let before = format!("(({at}) - {size})");
    format!("generate_series({} + {step}, {at}, {step})", floor(&before, step, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::query;

    #[test]
    fn every_rule_has_a_reason() {
        assert!(RULES.iter().all(|r| !r.why.is_empty()));
    }

    #[test]
    fn queries_are_said_otherwise() -> Result<()> {
        let said = |sql: &str| -> Result<String> {
            match rewrite(&query(sql)?.query)? {
                Asked::Sql(sql) => Ok(sql),
                Asked::Unsaid(why) => Err(why.into()),
            }
        };
        assert_eq!(said("SELECT a / b / 2 FROM t")?, "SELECT ms_div(ms_div(a, b), 2) FROM t");
        assert_eq!(said("SELECT make_array(a)[1] FROM t")?, "SELECT [a][1] FROM t");
        assert_eq!(said("SELECT nth_value(a, 2 ORDER BY b) FROM t")?, "SELECT (list(a ORDER BY b))[2] FROM t");
        assert!(
            said("SELECT 1 FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))")?
                .contains("FROM t AS __s")
        );
        Ok(())
    }
}
