//! Patterns as SQL writes them, in the spelling that DataFusion's functions take.
//!
//! | what is written | becomes |
//! |---|---|
//! | `a LIKE p ESCAPE e` | `a LIKE like_pattern(p, e)`, with `\` for `e` |
//! | `a SIMILAR TO p [ESCAPE e]` | `regexp_like(a, similar_pattern(p, e))`: the whole text, `%` and `_` as in LIKE |
//! | `to_char(t, 'YYYY-MM-DD')` | `to_char(t, time_pattern('YYYY-MM-DD'))`: PostgreSQL's patterns as those of strftime |
//!
//! They are functions because a pattern may be a column; one that is a literal is spelt anew once, when it is planned.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, Result};

/// The pattern of LIKE with another escape.
pub(crate) const LIKE: &str = "like_pattern";
/// The regular expression of SIMILAR TO.
pub(crate) const SIMILAR: &str = "similar_pattern";
/// The pattern of `to_char`.
pub(crate) const TIME: &str = "time_pattern";

/// The functions of this module.
pub(super) fn functions() -> [Arc<ScalarUDF>; 3] {
    let function = |name, args, spell| {
        let signature = Signature::string(args, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Pattern { name, spell, signature }))
    };
    [function(LIKE, 2, Spelling::Like), function(SIMILAR, 2, Spelling::Similar), function(TIME, 1, Spelling::Time)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Spelling {
    Like,
    Similar,
    Time,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Pattern {
    name: &'static str,
    spell: Spelling,
    signature: Signature,
}

impl ScalarUDFImpl for Pattern {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts = args.args.iter().map(|a| Ok(cast(&a.to_array(rows)?, &DataType::Utf8)?));
        let texts = texts.collect::<DfResult<Vec<_>>>()?;
        let mut spelt = Vec::with_capacity(rows);
        for row in 0..rows {
            let text = |i: usize| {
                let texts = texts.get(i)?.as_string::<i32>();
                texts.is_valid(row).then(|| texts.value(row))
            };
            spelt.push(match (self.spell, text(0), text(1)) {
                (Spelling::Time, Some(pattern), _) => Some(time_pattern(pattern)?),
                (Spelling::Like, Some(pattern), Some(escape)) => Some(like_pattern(pattern, escape)?),
                (Spelling::Similar, Some(pattern), Some(escape)) => Some(similar_pattern(pattern, escape)?),
                _ => None,
            });
        }
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(spelt.into_iter().next().flatten()))),
            false => Ok(ColumnarValue::Array(Arc::new(StringArray::from(spelt)))),
        }
    }
}

/// The one character of an escape; none where it is empty.
fn escape_of(escape: &str) -> Result<Option<char>> {
    let mut chars = escape.chars();
    match (chars.next(), chars.next()) {
        (escape, None) => Ok(escape),
        _ => Err(Error::invalid(format!("the escape '{escape}' is not one character"))
            .with_hint("Write one character, as in LIKE '10!%' ESCAPE '!'.")),
    }
}

/// The character behind an escape.
fn escaped(next: Option<char>, pattern: &str) -> Result<char> {
    next.ok_or_else(|| {
        Error::invalid(format!("the pattern '{pattern}' ends with its escape"))
            .with_hint("Write the escape twice to mean the character itself.")
    })
}

fn like_pattern(pattern: &str, escape: &str) -> Result<String> {
    let escape = escape_of(escape)?;
    let mut spelt = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            spelt.push('\\');
            spelt.push(escaped(chars.next(), pattern)?);
        } else {
            spelt.extend((c == '\\').then_some('\\'));
            spelt.push(c);
        }
    }
    Ok(spelt)
}

fn similar_pattern(pattern: &str, escape: &str) -> Result<String> {
    let escape = escape_of(escape)?;
    let mut spelt = String::from("(?s)^(?:");
    let mut chars = pattern.chars();
    let mut in_set = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => literal(escaped(chars.next(), pattern)?, &mut spelt),
            '[' => {
                in_set = true;
                spelt.push(c);
            }
            ']' => {
                in_set = false;
                spelt.push(c);
            }
            '\\' => spelt.push_str("\\\\"),
            c if in_set => spelt.push(c),
            '%' => spelt.push_str(".*"),
            '_' => spelt.push('.'),
            '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' => spelt.push(c),
            c => literal(c, &mut spelt),
        }
    }
    spelt.push_str(")$");
    Ok(spelt)
}

/// A character that means itself.
fn literal(c: char, spelt: &mut String) {
    if r"\.+*?()|[]{}^$#&-~".contains(c) {
        spelt.push('\\');
    }
    spelt.push(c);
}

/// PostgreSQL's patterns, longer ones first, and strftime's. Behind `FM` numbers have no zeros before them.
const TIMES: [(&str, &str, Option<&str>); 18] = [
    ("HH24", "%H", Some("%-H")),
    ("HH12", "%I", Some("%-I")),
    ("HH", "%I", Some("%-I")),
    ("MI", "%M", Some("%-M")),
    ("SS", "%S", Some("%-S")),
    ("MS", "%3f", None),
    ("US", "%6f", None),
    ("IYYY", "%G", None),
    ("YYYY", "%Y", Some("%-Y")),
    ("YY", "%y", None),
    ("MM", "%m", Some("%-m")),
    ("DDD", "%j", Some("%-j")),
    ("DD", "%d", Some("%-d")),
    ("IW", "%V", Some("%-V")),
    ("ID", "%u", None),
    ("AM", "%p", None),
    ("PM", "%p", None),
    ("OF", "%:z", None),
];

/// Names, whose letters are as they are written.
const NAMES: [(&str, &str); 6] =
    [("FMMonth", "%B"), ("FMDay", "%A"), ("Mon", "%b"), ("Dy", "%a"), ("am", "%P"), ("pm", "%P")];

fn time_pattern(pattern: &str) -> Result<String> {
    // strftime's, and the two names that durations have.
    if pattern.contains('%') || ["pretty", "iso8601"].contains(&pattern.to_lowercase().as_str()) {
        return Ok(pattern.to_owned());
    }
    let mut spelt = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            spelt.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some((name, time)) = NAMES.iter().find(|(name, _)| rest.starts_with(name)) {
            spelt.push_str(time);
            rest = &rest[name.len()..];
            continue;
        }
        let short = rest.get(..2).is_some_and(|fm| fm.eq_ignore_ascii_case("FM"));
        let number = if short { &rest[2..] } else { rest };
        let known = |name: &str| number.get(..name.len()).is_some_and(|part| part.eq_ignore_ascii_case(name));
        match TIMES.iter().find(|(name, ..)| known(name)) {
            Some((name, _, Some(plain))) if short => {
                spelt.push_str(plain);
                rest = &number[name.len()..];
            }
            Some((name, time, _)) if !short => {
                spelt.push_str(time);
                rest = &number[name.len()..];
            }
            None if !c.is_alphabetic() => {
                spelt.push(c);
                rest = &rest[c.len_utf8()..];
            }
            _ => {
                let word: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                return Err(Error::unsupported(format!("to_char has no pattern \"{word}\"")).with_hint(
                    "The patterns are YYYY, YY, MM, Mon, FMMonth, DD, DDD, Dy, FMDay, HH24, HH12, MI, SS, MS, US, AM, OF, \
                     IYYY, IW and ID; other words stand in double quotes. Those of strftime are read too: '%Y-%m-%d'.",
                ));
            }
        }
    }
    Ok(spelt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_of_like_becomes_a_backslash() {
        for (pattern, escape, spelt) in [
            ("10!%", "!", "10\\%"),
            ("a!!b!_", "!", "a\\!b\\_"),
            (r"a\b%", "!", r"a\\b%"),
            (r"a\b%", "", r"a\\b%"),
            (r"a\%", "\\", r"a\%"),
        ] {
            assert_eq!(like_pattern(pattern, escape).expect("a pattern"), spelt);
        }
        assert!(like_pattern("a!", "!").is_err() && like_pattern("a", "ab").is_err());
    }

    #[test]
    fn a_pattern_of_similar_is_for_the_whole_text() {
        for (pattern, spelt) in [
            ("a%", "(?s)^(?:a.*)$"),
            ("a|b_", "(?s)^(?:a|b.)$"),
            ("a.b^", r"(?s)^(?:a\.b\^)$"),
            ("[a-c%]+", "(?s)^(?:[a-c%]+)$"),
            (r"\%x", "(?s)^(?:%x)$"),
        ] {
            assert_eq!(similar_pattern(pattern, "\\").expect("a pattern"), spelt);
        }
    }

    #[test]
    fn times_are_spelt_as_in_postgresql() {
        for (pattern, spelt) in [
            ("YYYY-MM-DD", "%Y-%m-%d"),
            ("yyyy/mm/dd hh24:mi:ss.us", "%Y/%m/%d %H:%M:%S.%6f"),
            ("FMDD Mon YYYY", "%-d %b %Y"),
            ("\"week\" IW", "week %V"),
            ("%Y", "%Y"),
            ("HH12 AM", "%I %p"),
        ] {
            assert_eq!(time_pattern(pattern).expect("a pattern"), spelt);
        }
        assert!(time_pattern("YYYY-QQ").is_err() && time_pattern("Month").is_err());
    }
}
