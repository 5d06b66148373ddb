//! The product and the quotient of decimals: scales that keep what matters, rounded half away from zero.
//!
//! Sums, differences and remainders have DataFusion's types, which are exact. A product has them too where they
//! leave room before the point. A quotient is cut there after four digits; here it is computed to one digit
//! more than it gets, in 256 bits where 128 are not enough, and rounded by a cast.

use arrow::datatypes::DataType;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator};

use super::digits::{Digits, MAX_DIGITS};

/// Digits behind the point that a long product keeps, and that a quotient has where there is room for them.
const PRODUCT_SCALE: i16 = 18;
const QUOTIENT_SCALE: i16 = 16;
/// Digits behind the point that any quotient has.
const LEAST_SCALE: i16 = 6;
/// Digits that arrow's division adds to the scale of the dividend.
const DIVISION_ADDS: i16 = 4;

const MAX: i16 = MAX_DIGITS as i16;

/// `left op right` over decimals of these digits, where DataFusion's own type will not do.
pub(super) fn of_decimals(left: &Expr, l: Digits, op: Operator, right: &Expr, r: Digits) -> Option<Expr> {
    if l.scale < 0 || r.scale < 0 {
        return None;
    }
    match op {
        Operator::Multiply => product(left, l, right, r),
        Operator::Divide => Some(quotient(left, l, right, r)),
        _ => None,
    }
}

fn product(left: &Expr, l: Digits, right: &Expr, r: Digits) -> Option<Expr> {
    let full = l.scale + r.scale;
    let scale = PRODUCT_SCALE.max(l.scale).max(r.scale);
    if l.precision + r.precision < MAX || full <= scale {
        return None;
    }
    let exact = binary(wide(left, l), Operator::Multiply, wide(right, r));
    Some(cast(exact, decimal(MAX, scale)))
}

fn quotient(left: &Expr, l: Digits, right: &Expr, r: Digits) -> Expr {
    let whole = l.precision - l.scale + r.scale;
    let scale = l.scale.max(LEAST_SCALE).max(QUOTIENT_SCALE.min(MAX - whole));
    let precision = MAX.min(whole + scale);
    // One digit more than it gets: rounding away from half needs no more, since what is cut is cut towards zero.
    let before = l.scale.max(scale + 1 - DIVISION_ADDS);
    let dividend = Digits { precision: l.precision + before - l.scale, scale: before };
    let shifted = dividend.precision + DIVISION_ADDS + r.scale;
    let cut = if shifted <= MAX {
        binary(narrow(left, dividend), Operator::Divide, narrow(right, r))
    } else {
        binary(wide(left, dividend), Operator::Divide, wide(right, r))
    };
    cast(cut, decimal(precision, scale))
}

fn narrow(expr: &Expr, digits: Digits) -> Expr {
    cast(expr.clone(), decimal(digits.precision, digits.scale))
}

fn wide(expr: &Expr, digits: Digits) -> Expr {
    cast(expr.clone(), digits.wide())
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

fn decimal(precision: i16, scale: i16) -> DataType {
    DataType::Decimal128(precision.clamp(1, MAX) as u8, scale.clamp(0, MAX) as i8)
}
