//! Parameters written as `?`, which DBAPI drivers and SQLAlchemy send: SQL here knows `$1`, `$2`, ….

use std::borrow::Cow;

/// `sql` with its question marks numbered. One in text, in a quoted name or in a comment is none.
pub(crate) fn number_parameters(sql: &str) -> Cow<'_, str> {
    let mut numbered = String::new();
    let mut copied = 0;
    let mut count = 0;
    let mut at = 0;
    while let Some(byte) = sql.as_bytes().get(at) {
        if *byte == b'?' {
            count += 1;
            numbered.push_str(&sql[copied..at]);
            numbered.push_str(&format!("${count}"));
            copied = at + 1;
            at = copied;
        } else {
            at += opaque_len(&sql[at..]).max(1);
            // The next byte looked at must begin a character.
            while !sql.is_char_boundary(at) {
                at += 1;
            }
        }
    }
    if count == 0 {
        return Cow::Borrowed(sql);
    }
    numbered.push_str(&sql[copied..]);
    Cow::Owned(numbered)
}

/// The length of the text, quoted name or comment that `sql` begins with; 0 if it begins with something else.
fn opaque_len(sql: &str) -> usize {
    let rest_after = |start: usize, end: &str| match sql[start..].find(end) {
        Some(found) => start + found + end.len(),
        None => sql.len(),
    };
    // A doubled quote ends one text and begins the next, which comes to the same.
    match sql.as_bytes() {
        [b'\'', ..] => rest_after(1, "'"),
        [b'"', ..] => rest_after(1, "\""),
        [b'-', b'-', ..] => rest_after(2, "\n"),
        [b'/', b'*', ..] => comment_len(sql),
        [b'$', ..] => match dollar_tag(sql) {
            Some(tag) => rest_after(tag.len(), tag),
            None => 0,
        },
        _ => 0,
    }
}

/// Comments in `/* */` nest.
fn comment_len(sql: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `$tag$` or `$$` at the start: what begins dollar-quoted text. `$1` does not.
fn dollar_tag(sql: &str) -> Option<&str> {
    let end = 1 + sql[1..].find('$')?;
    let tag = &sql[1..end];
    let named = !tag.starts_with(|c: char| c.is_ascii_digit());
    (named && tag.chars().all(|c| c.is_alphanumeric() || c == '_')).then(|| &sql[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_are_numbered() {
        for (sql, want) in [
            ("SELECT 1", "SELECT 1"),
            ("VALUES (?, ?,?)", "VALUES ($1, $2,$3)"),
            ("SELECT '?', 'it''s ?', ?", "SELECT '?', 'it''s ?', $1"),
            ("SELECT \"a?\" -- why?\n, ?", "SELECT \"a?\" -- why?\n, $1"),
            ("SELECT /* ? /* ? */ ? */ ?", "SELECT /* ? /* ? */ ? */ $1"),
            ("SELECT $$?$$, $q$ ? $q$, $1, ?", "SELECT $$?$$, $q$ ? $q$, $1, $1"),
            ("SELECT 'ä?' || ü || ? || 'ö", "SELECT 'ä?' || ü || $1 || 'ö"),
            ("SELECT ? -- and?", "SELECT $1 -- and?"),
            ("SELECT ? /* open ?", "SELECT $1 /* open ?"),
            ("?", "$1"),
            ("", ""),
        ] {
            assert_eq!(number_parameters(sql), want);
        }
    }
}
