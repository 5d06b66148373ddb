//! Single values in text: numbers, truth values, escapes.

/// A whole number in decimal, with an optional sign.
pub(crate) fn read_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    // Nineteen digits or more may overflow and are left to the careful parser.
    if digits.is_empty() || digits.len() > 18 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut n = 0i64;
    for b in digits {
        let d = b.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + i64::from(d);
    }
    Some(if negative { -n } else { n })
}

/// A floating point number, rounded to the nearest there is. One that is larger than the largest is none.
pub(crate) fn read_float<F: std::str::FromStr + Into<f64> + Copy>(text: &[u8]) -> Option<F> {
    let value: F = std::str::from_utf8(text).ok()?.parse().ok()?;
    let infinite = value.into().is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!infinite).then_some(value)
}

/// A truth value as JSON writes it.
pub(crate) fn read_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// A truth value as people write it.
pub(crate) fn read_loose_bool(text: &[u8]) -> Option<bool> {
    const TRUE: [&[u8]; 5] = [b"true", b"t", b"yes", b"y", b"1"];
    const FALSE: [&[u8]; 5] = [b"false", b"f", b"no", b"n", b"0"];
    if TRUE.iter().any(|t| t.eq_ignore_ascii_case(text)) {
        return Some(true);
    }
    FALSE.iter().any(|f| f.eq_ignore_ascii_case(text)).then_some(false)
}

/// Whether `text` is a number by JSON's grammar (RFC 8259, section 6).
pub(crate) fn is_json_number(text: &[u8]) -> bool {
    let digits = |t: &[u8]| t.iter().take_while(|b| b.is_ascii_digit()).count();
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned[0] == b'0') {
        return false;
    }
    let mut rest = &unsigned[whole..];
    if let [b'.', after @ ..] = rest {
        let n = digits(after);
        if n == 0 {
            return false;
        }
        rest = &after[n..];
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = if let [b'+' | b'-', more @ ..] = after { more } else { after };
        let n = digits(after);
        if n == 0 {
            return false;
        }
        rest = &after[n..];
    }
    rest.is_empty()
}

/// How a value's special characters were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// JSON's backslashes.
    Json,
    /// A character of a quoted CSV field that takes the next one literally; the quote itself when
    /// quotes are doubled.
    Csv(u8),
}

impl Escapes {
    /// Appends the meaning of `text` to `out`; `None` when an escape is not one.
    pub(crate) fn resolve(self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Escapes::Json => unescape_json(text, out),
            Escapes::Csv(escape) => {
                let mut rest = text;
                while let Some(i) = memchr::memchr(escape, rest) {
                    out.extend_from_slice(&rest[..i]);
                    out.extend(rest.get(i + 1));
                    rest = rest.get(i + 2..).unwrap_or_default();
                }
                out.extend_from_slice(rest);
                Some(())
            }
        }
    }
}

fn unescape_json(mut text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some(i) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..i]);
        let escape = *text.get(i + 1)?;
        text = &text[i + 2..];
        match escape {
            b'"' | b'\\' | b'/' => out.push(escape),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (c, rest) = unescape_unicode(text)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                text = rest;
            }
            _ => return None,
        }
    }
    out.extend_from_slice(text);
    Some(())
}

/// The character after `\u`, which may take two surrogates.
fn unescape_unicode(text: &[u8]) -> Option<(char, &[u8])> {
    let hex = |t: &[u8]| t.iter().try_fold(0u32, |n, b| Some(n * 16 + char::from(*b).to_digit(16)?));
    let (first, rest) = text.split_at_checked(4)?;
    let first = hex(first)?;
    if !(0xD800..0xDC00).contains(&first) {
        return Some((char::from_u32(first)?, rest));
    }
    let (second, rest) = rest.strip_prefix(b"\\u")?.split_at_checked(4)?;
    let second = hex(second)?.checked_sub(0xDC00).filter(|s| *s < 0x400)?;
    Some((char::from_u32(0x10000 + ((first - 0xD800) << 10) + second)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers() {
        for good in ["0", "-0.5", "12", "1e5", "1.25E-3"] {
            assert!(is_json_number(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", "01", "1.", ".5", "1e", "1-2", "+1", "NaN"] {
            assert!(!is_json_number(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn escapes_are_resolved() {
        let resolve = |e: Escapes, t: &str| {
            let mut out = vec![];
            e.resolve(t.as_bytes(), &mut out).map(|()| String::from_utf8(out).expect("text"))
        };
        assert_eq!(resolve(Escapes::Json, r#"a\"b\\\n\u00e9\ud83d\ude00"#).as_deref(), Some("a\"b\\\né😀"));
        assert_eq!(resolve(Escapes::Json, r"\ud83d"), None);
        assert_eq!(resolve(Escapes::Json, r"\x"), None);
        assert_eq!(resolve(Escapes::Csv(b'"'), r#"say ""hi"""#).as_deref(), Some(r#"say "hi""#));
        assert_eq!(resolve(Escapes::Csv(b'\\'), r#"say \"hi\" \\"#).as_deref(), Some(r#"say "hi" \"#));
    }
}
