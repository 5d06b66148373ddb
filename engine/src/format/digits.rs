//! Numbers as they are written: read digit by digit, so that none is lost on the way through a double.

use arrow::datatypes::ArrowNativeTypeOp;

use super::values::read_i64;

/// More digits than any type has.
const MOST: i64 = 100;

/// A number in decimal: `digits` (of which `fraction` stand behind the point) times ten to the `exponent`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Digits<'a> {
    /// Reads all of `text`: a sign, digits with a point somewhere, an exponent.
    pub(crate) fn read(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let (whole, rest) = split_digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest),
            rest => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', exponent @ ..] => read_exponent(exponent)?,
            _ => return None,
        };
        (!whole.is_empty() || !fraction.is_empty()).then_some(Digits { negative, whole, fraction, exponent })
    }

    /// Whether it is written with a point or an exponent.
    pub(crate) fn is_plain(text: &[u8]) -> bool {
        !text.iter().any(|b| matches!(b, b'.' | b'e' | b'E'))
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = u8> + use<'a> {
        self.whole.iter().chain(self.fraction).copied()
    }

    /// How many digits there are from the first to the last that is not zero.
    pub(crate) fn significant(&self) -> usize {
        let leading = self.all().take_while(|b| *b == b'0').count();
        let trailing = self.all().rev().take_while(|b| *b == b'0').count();
        (self.whole.len() + self.fraction.len()).saturating_sub(leading + trailing)
    }

    /// Whether both are the same number.
    pub(crate) fn equals(&self, other: &Digits<'_>) -> bool {
        let parts = |d: &Digits<'_>| -> (Vec<u8>, i64) {
            let mut digits: Vec<u8> = d.all().skip_while(|b| *b == b'0').collect();
            let mut exponent = d.exponent - d.fraction.len() as i64;
            while digits.last() == Some(&b'0') {
                digits.pop();
                exponent += 1;
            }
            if digits.is_empty() { (digits, 0) } else { (digits, exponent) }
        };
        let (a, b) = (parts(self), parts(other));
        a == b && (self.negative == other.negative || a.0.is_empty())
    }

    /// The number times ten to the `scale`, as a whole number. What is behind that is rounded, half away from
    /// zero; where it must be `exact`, there may be nothing but zeros. `None` when it does not fit.
    pub(crate) fn scaled<N: ArrowNativeTypeOp>(&self, scale: i8, exact: bool) -> Option<N> {
        let shift = self.exponent - self.fraction.len() as i64 + i64::from(scale);
        let leading = self.all().take_while(|b| *b == b'0').count();
        let count = self.whole.len() + self.fraction.len() - leading;
        let mut digits = self.all().skip(leading);
        if count == 0 {
            return Some(N::ZERO);
        }
        // Digits that stay, and zeros behind them.
        let kept = (count as i64 + shift).clamp(-1, count as i64);
        if shift > MOST {
            return None;
        }
        let ten = N::usize_as(10);
        // Downwards for a negative number, so that the least one fits.
        let add = |n: N, digit: u8| {
            let (n, digit) = (n.mul_checked(ten).ok()?, N::usize_as(usize::from(digit - b'0')));
            if self.negative { n.sub_checked(digit).ok() } else { n.add_checked(digit).ok() }
        };
        let mut n = N::ZERO;
        for digit in digits.by_ref().take(kept.max(0) as usize) {
            n = add(n, digit)?;
        }
        for _ in 0..shift.max(0) {
            n = add(n, b'0')?;
        }
        // With no digit kept the first stands just behind; with less than none, a zero does.
        let next = if kept < 0 { Some(b'0') } else { digits.next() };
        if exact {
            let rest = if kept < 0 { false } else { next.is_none_or(|d| d == b'0') && digits.all(|d| d == b'0') };
            return rest.then_some(n);
        }
        if next.is_some_and(|d| d >= b'5') {
            let one = N::usize_as(1);
            n = if self.negative { n.sub_checked(one) } else { n.add_checked(one) }.ok()?;
        }
        Some(n)
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let length = text.iter().take_while(|b| b.is_ascii_digit()).count();
    text.split_at(length)
}

fn read_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        all => (1, all),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Past this it does not matter how large it is.
    let n = digits.iter().fold(0i64, |n, b| (n * 10 + i64::from(b - b'0')).min(1 << 40));
    Some(sign * n)
}

/// A whole number, also when it is written as `5.0` or `1e3`.
pub(crate) fn read_whole(text: &[u8]) -> Option<i64> {
    if let Some(n) = read_i64(text) {
        return Some(n);
    }
    if Digits::is_plain(text) { None } else { Digits::read(text)?.scaled(0, true) }
}

/// A whole number that is not negative, also when it is written as `5.0` or `1e3`.
pub(crate) fn read_unsigned(text: &[u8]) -> Option<u64> {
    Digits::read(text)?.scaled(0, true)
}

/// Whether a double says the same number as `text`, so that texts of other numbers are other doubles: at most 17
/// digits that count, which is what doubles are printed with; beyond 2^53 the number itself.
pub(crate) fn is_double(text: &[u8]) -> bool {
    let Some(digits) = Digits::read(text) else { return false };
    let Some(value) = super::values::read_float::<f64>(text) else { return false };
    if value.abs() < 9_007_199_254_740_992.0 && digits.significant() <= 17 {
        return true;
    }
    let shortest = format!("{value:e}");
    Digits::read(shortest.as_bytes()).is_some_and(|d| d.equals(&digits))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::i256;

    use super::*;

    #[test]
    fn whole_numbers_at_the_edges() {
        for (text, n) in [
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775808.0", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("90071992547409930e-1", Some(9_007_199_254_740_993)),
            ("1e3", Some(1000)),
            ("1e19", None),
            ("0e999999999999", Some(0)),
            ("1e-999999999999", None),
            ("0.0000", Some(0)),
            ("1500e-2", Some(15)),
            ("5.0", Some(5)),
            ("5.5", None),
            ("0.05", None),
            ("12x", None),
            ("-", None),
            (".", None),
            ("", None),
            ("nan", None),
            ("inf", None),
        ] {
            assert_eq!(read_whole(text.as_bytes()), n, "{text}");
        }
        for (text, n) in [
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551615.0", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-0", Some(0)),
            ("-1", None),
            ("1.8e19", Some(18_000_000_000_000_000_000)),
        ] {
            assert_eq!(read_unsigned(text.as_bytes()), n, "{text}");
        }
    }

    #[test]
    fn decimals_are_rounded_half_away_from_zero() {
        for (text, n) in [
            ("1.005", Some(101)),
            ("-1.005", Some(-101)),
            ("1.0049999999999999999999999999999999999999", Some(100)),
            ("123456789012345678.91", Some(12_345_678_901_234_567_891)),
            ("1e-7", Some(0)),
            ("5e-3", Some(1)),
            ("4.9e-3", Some(0)),
            ("5e-4", Some(0)),
            ("1.5e2", Some(15_000)),
            ("-0", Some(0)),
            ("1e40", None),
        ] {
            let read: Option<i128> = Digits::read(text.as_bytes()).and_then(|d| d.scaled(2, false));
            assert_eq!(read, n, "{text}");
        }
        let wide: Option<i256> = Digits::read(b"1e40").and_then(|d| d.scaled(2, false));
        assert_eq!(wide.map(|n| n.to_string()), Some(format!("1{}", "0".repeat(42))));
    }

    #[test]
    fn doubles_that_tell_numbers_apart() {
        for good in ["0.1", "-2.5e-3", "9007199254740992", "1e22", "0.10000000000000001", "3.141592653589793", "0.0"] {
            assert!(is_double(good.as_bytes()), "{good}");
        }
        for bad in ["9007199254740993", "9007199254740993.0", "1e400", "0.123456789012345678901", "12345678901234567.8"]
        {
            assert!(!is_double(bad.as_bytes()), "{bad}");
        }
    }
}
