//! Spellings that the planner does not read, in words that it does.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Value, VisitMut, visit_expressions_mut};

use crate::statement::fold;

/// Rewords what there is in `syntax`.
pub(super) fn reword(syntax: &mut impl VisitMut) {
    let _ = visit_expressions_mut(syntax, |expr| {
        if let Expr::CompoundFieldAccess { root, access_chain } = expr {
            // `a.b.c` may begin with a table; behind anything else a word is a field.
            let named = matches!(root.as_ref(), Expr::Identifier(_));
            let is_word = |access: &AccessExpr| matches!(access, AccessExpr::Dot(Expr::Identifier(_)));
            let first = if named { access_chain.iter().take_while(|access| is_word(access)).count() } else { 0 };
            for access in access_chain.iter_mut().skip(first) {
                if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                    let name = Value::SingleQuotedString(fold(field)).with_span(field.span);
                    *access = AccessExpr::Dot(Expr::Value(name));
                }
            }
        }
        ControlFlow::<()>::Continue(())
    });
}
