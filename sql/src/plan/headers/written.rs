//! Names for columns that have none: their expressions, as they were written.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, ObjectNamePart, Select, SelectFlavor, SelectItem, VisitMut, VisitorMut,
};

use super::{one_line, query_of};
use crate::plan::parameters::written_parameter;
use crate::plan::syntax::taken;
use crate::statement::{fold, quote_name};

/// Characters of the longest name that is made up.
const LONGEST: usize = 120;

/// Names what has no name in each SELECT of `statement`. `FROM t` alone becomes `SELECT * FROM t`.
pub(in crate::plan) fn name_items(statement: &mut DfStatement) {
    if let Some(query) = query_of(statement) {
        // The visitor never breaks.
        let _ = query.visit(&mut Names);
    }
}

struct Names;

impl VisitorMut for Names {
    type Break = ();

    // Before what is in the SELECT is named, so that it is part of a name as it was written.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select.projection.is_empty() && select.flavor == SelectFlavor::FromFirstNoSelect {
            select.projection = vec![SelectItem::Wildcard(Default::default())];
        }
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if let Some(name) = name_of(expr) {
                *item = SelectItem::ExprWithAlias { expr: taken(expr), alias: Ident::with_quote('"', name) };
            }
        }
        ControlFlow::Continue(())
    }
}

/// The name of a column; none where the planner gives it the one it should have.
pub(super) fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) => name_of(inner),
        Expr::Identifier(_) => None,
        // Also a field of a struct.
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(AccessExpr::Dot(Expr::Identifier(field))) => Some(fold(field)),
            _ => Some(text(expr)),
        },
        expr => Some(text(expr)),
    }
}

/// An expression as text: names in the case that they have, on one line, not too long.
pub(super) fn text(expr: &Expr) -> String {
    let mut expr = expr.clone();
    let _ = expr.visit(&mut Folded);
    let text = expr.to_string();
    let text = one_line(&text);
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

/// Writes names as they are: in small letters unless quoted, quoted where they must be.
struct Folded;

impl VisitorMut for Folded {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(parameter) = written_parameter(expr) {
            *expr = parameter;
        }
        match expr {
            Expr::Identifier(name) => fold_name(name),
            Expr::CompoundIdentifier(names) => names.iter_mut().for_each(fold_name),
            Expr::Function(f) => {
                for part in &mut f.name.0 {
                    if let ObjectNamePart::Identifier(name) = part {
                        name.value = fold(name);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn fold_name(name: &mut Ident) {
    let folded = fold(name);
    // Quoted already where it has to be.
    *name = Ident { value: quote_name(&folded), quote_style: None, span: name.span };
}
