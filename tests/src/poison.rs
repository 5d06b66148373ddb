//! Poisons a query: on the rows whose `p` is 0, one in 20, an expression fails. They must be put aside, and the result
//! must be that over the other rows, at every epoch; what takes such a row back must be put aside as well.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, SelectItem, SetExpr, TableFactor,
    VisitMut, VisitorMut,
};
use millstream_sql::statement::Query;

use crate::Result;
use crate::case::query;

/// True where `p` is above 0; where it is 0 they fail, each for a reason of its own.
pub const TERMS: [&str; 6] = [
    "10 / p > 0",
    "10 % p >= 0",
    "CAST(CASE WHEN p = 0 THEN 'x' ELSE '1' END AS INT) = 1",
    "9223372036854775797 + (11 - 11 * p) > 0",
    "CAST(100 + 100 * (1 - least(p, 1)) AS TINYINT) = 100",
    "CAST('2024-01-0' || CASE WHEN p = 0 THEN 'x' ELSE '1' END AS DATE) > DATE '2000-01-01'",
];

/// `of` with every stream that it reads filtered by `term`.
pub fn read(of: &Query, streams: &[String], term: &str) -> Result<Query> {
    struct Filters<'a>(&'a [String], &'a str);

    impl Filters<'_> {
        fn wrapped(&self, name: &str) -> Option<String> {
            self.0.iter().any(|s| s == name).then(|| format!("(SELECT * FROM {name} WHERE {})", self.1))
        }

        fn arguments(&self, args: &mut [FunctionArg]) {
            for arg in args {
                let (FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
                | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }) = arg
                else {
                    continue;
                };
                let name = match &*expr {
                    Expr::Prefixed { value, .. } => value.to_string(),
                    expr => expr.to_string(),
                };
                if let Some(wrapped) = self.wrapped(&name) {
                    *expr = Expr::Identifier(Ident::new(wrapped));
                }
            }
        }
    }

    impl VisitorMut for Filters<'_> {
        type Break = ();

        fn post_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
            match table {
                TableFactor::Table { args: Some(args), .. } => self.arguments(&mut args.args),
                TableFactor::TableFunction { expr: Expr::Function(f), .. } => {
                    if let FunctionArguments::List(list) = &mut f.args {
                        self.arguments(&mut list.args);
                    }
                }
                TableFactor::Table { name, alias, .. } => {
                    if let Some(wrapped) = self.wrapped(&name.to_string()) {
                        let shown = if alias.is_some() { wrapped } else { format!("{wrapped} AS {name}") };
                        *name = ObjectName::from(vec![Ident::new(shown)]);
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }

    let mut ast = of.query.clone();
    let _ = ast.visit(&mut Filters(streams, term));
    Ok(Query { emit: of.emit, ..query(&ast.to_string())? })
}

/// `of` with what it shows, or what its aggregates are over, depending on `term`; nothing where `p` is not in sight or
/// nothing depends on it.
pub fn shown(of: &Query, streams: &[String], term: &str) -> Result<Option<Query>> {
    let mut ast = of.query.clone();
    let SetExpr::Select(select) = ast.body.as_mut() else { return Ok(None) };
    let [from] = select.from.as_slice() else { return Ok(None) };
    let direct = match &from.relation {
        TableFactor::Table { name, args: None, .. } => streams.contains(&name.to_string()),
        TableFactor::Table { args: Some(args), .. } => {
            args.args.first().is_some_and(|a| streams.contains(&a.to_string()))
        }
        _ => false,
    };
    let text = select.to_string();
    if !direct || select.distinct.is_some() || text.contains("DISTINCT ON") {
        return Ok(None);
    }
    let grouped = text.contains(" GROUP BY ");
    let mut poisoned = 0;
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let call =
            matches!(&*expr, Expr::Function(f) if AGGREGATES.contains(&f.name.to_string().to_lowercase().as_str()));
        match expr {
            Expr::Function(f) if call && f.filter.is_none() => {
                if let FunctionArguments::List(list) = &mut f.args
                    && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.first_mut()
                {
                    *argument = guarded(argument, term);
                    poisoned += 1;
                }
            }
            // Keys stay; so does what is computed from aggregates.
            expr if !grouped && !text.contains("count(") && !text.contains("sum(") => {
                *expr = guarded(expr, term);
                poisoned += 1;
            }
            _ => {}
        }
    }
    if poisoned == 0 {
        return Ok(None);
    }
    Ok(Some(Query { emit: of.emit, ..query(&ast.to_string())? }))
}

const AGGREGATES: [&str; 12] = [
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "array_agg",
    "string_agg",
    "var_samp",
    "stddev",
    "median",
    "bool_or",
    "bit_xor",
];

fn guarded(expr: &Expr, term: &str) -> Expr {
    Expr::Identifier(Ident::new(format!("CASE WHEN {term} THEN {expr} END")))
}

/// `of` with a filter over its result that fails on rows that come and go; and what the answer is.
pub fn result(of: &Query, column: &str) -> Result<(Query, Query)> {
    let over = |filter: String| -> Result<Query> {
        let sql = format!("SELECT * FROM ({}) AS r WHERE {filter}", of.text);
        Ok(Query { emit: of.emit, ..query(&sql)? })
    };
    Ok((
        over(format!("100 / ({column} % 3) <> 7 OR {column} IS NULL"))?,
        over(format!("{column} % 3 <> 0 OR {column} IS NULL"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_filtered() -> Result<()> {
        let streams = ["bids".to_owned()];
        let read = |sql: &str| -> Result<String> { Ok(super::read(&query(sql)?, &streams, "10 / p > 0")?.text) };
        let bids = "(SELECT * FROM bids WHERE 10 / p > 0)";
        assert_eq!(read("SELECT id FROM bids")?, format!("SELECT id FROM {bids} AS bids"));
        assert_eq!(read("SELECT id FROM HOP(bids, ts, a)")?, format!("SELECT id FROM HOP({bids}, ts, a)"));
        assert_eq!(
            read("SELECT id FROM TABLE(HOP(TABLE bids, ts, a))")?,
            format!("SELECT id FROM TABLE(HOP({bids}, ts, a))")
        );
        Ok(())
    }

    #[test]
    fn arguments_of_aggregates_are_poisoned() -> Result<()> {
        let streams = ["bids".to_owned()];
        let shown = super::shown(&query("SELECT k, sum(x) FROM bids GROUP BY k")?, &streams, "10 / p > 0")?;
        let shown = shown.map(|q| q.text);
        assert_eq!(shown.as_deref(), Some("SELECT k, sum(CASE WHEN 10 / p > 0 THEN x END) FROM bids GROUP BY k"));
        Ok(())
    }
}
