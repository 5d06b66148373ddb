//! `c = 1 OR c = 2 OR …` as one list, which is looked up instead of compared; and short lists as comparisons, which
//! are quicker and by which files are pruned.

use datafusion::common::internal_err;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_binary_owned;
use datafusion::logical_expr::{Expr, Operator, binary_expr};

/// Lists up to this long are comparisons.
const SHORT: usize = 3;

/// Puts neighbours of a chain that compare one column with constants into one list.
pub(super) fn gather(expr: Expr, _: &SimplifyContext) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(b) = expr else { return Ok(Transformed::no(expr)) };
    // `c <> 1 AND c <> 2` is NOT IN; `c <> 1 OR c <> 2` is no list.
    let negated = match b.op {
        Operator::Or => false,
        Operator::And => true,
        _ => return Ok(Transformed::no(Expr::BinaryExpr(b))),
    };
    let op = b.op;
    let mut gathered: Vec<Expr> = vec![];
    let mut changed = false;
    for operand in split_binary_owned(Expr::BinaryExpr(b), op) {
        let list = as_list(&operand, negated);
        let same = list
            .as_ref()
            .and_then(|l| gathered.iter().position(|g| as_list(g, negated).is_some_and(|g| g.expr == l.expr)));
        match (list, same) {
            (Some(list), Some(at)) => {
                let Some(mut into) = as_list(&gathered[at], negated) else { continue };
                for item in list.list {
                    if !into.list.contains(&item) {
                        into.list.push(item);
                    }
                }
                gathered[at] = Expr::InList(into);
                changed = true;
            }
            _ => gathered.push(operand),
        }
    }
    match gathered.into_iter().reduce(|a, b| binary_expr(a, op, b)) {
        Some(expr) => Ok(Transformed::new_transformed(expr, changed)),
        None => internal_err!("a chain of {op} without operands"),
    }
}

/// A comparison of a column with constants as a list.
fn as_list(expr: &Expr, negated: bool) -> Option<InList> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let wanted = if negated { Operator::NotEq } else { Operator::Eq };
            let fits = *op == wanted && is_place(left) && is_constant(right);
            fits.then(|| InList::new(left.clone(), vec![right.as_ref().clone()], negated))
        }
        Expr::InList(list) => {
            let fits = list.negated == negated && is_place(&list.expr) && list.list.iter().all(is_constant);
            fits.then(|| list.clone())
        }
        _ => None,
    }
}

/// A column, or the value of one whatever its bits.
fn is_place(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::ScalarFunction(f) => f.name() == "float_value" && matches!(f.args.first(), Some(Expr::Column(_))),
        _ => false,
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null())
}

/// Writes a short list as comparisons.
pub(super) fn spell_out(expr: Expr) -> Transformed<Expr> {
    let Expr::InList(list) = expr else { return Transformed::no(expr) };
    let short = match list.list.len() {
        0 => false,
        1 => true,
        n => n <= SHORT && matches!(*list.expr, Expr::Column(_)),
    };
    if !short {
        return Transformed::no(Expr::InList(list));
    }
    let (op, with) = if list.negated { (Operator::NotEq, Operator::And) } else { (Operator::Eq, Operator::Or) };
    let InList { expr, list, negated } = list;
    let compared = list.into_iter().map(|item| binary_expr(expr.as_ref().clone(), op, item));
    match compared.reduce(|a, b| binary_expr(a, with, b)) {
        Some(all) => Transformed::yes(all),
        None => Transformed::no(Expr::InList(InList { expr, list: vec![], negated })),
    }
}
