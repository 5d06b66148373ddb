//! The names that rotation gives to files: `app.log.1`, `app.log-20240229`, `app-2024-02-29.log`, `app.log.2.gz`.

use crate::format::compression::Compression;

/// The name without the endings of compressions.
fn inflated(name: &str) -> &str {
    let mut name = name;
    loop {
        match Compression::of_name(name) {
            (Compression::None, _) => return name,
            (_, "") => return name,
            (_, inner) => name = inner,
        }
    }
}

/// `name` without the number or date that rotation has put at its end, where there is one.
fn without_number(name: &str) -> Option<&str> {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | ':' | 'T' | 'Z');
    let stem = name.trim_end_matches(is_number);
    let number = &name[stem.len()..];
    let separated = number.starts_with(['.', '-', '_']);
    (!stem.is_empty() && separated && number.contains(|c: char| c.is_ascii_digit())).then_some(stem)
}

/// What the file `name` was called before it was rotated and compressed; the name itself where it was not.
pub(super) fn live_name(name: &str) -> String {
    let name = inflated(name);
    for old in [".old", ".prev"] {
        if let Some(stem) = name.strip_suffix(old).filter(|s| !s.is_empty()) {
            return stem.to_owned();
        }
    }
    if let Some(stem) = without_number(name) {
        return stem.to_owned();
    }
    if let Some((stem, ending)) = name.rsplit_once('.')
        && let Some(stem) = without_number(stem)
    {
        return format!("{stem}.{ending}");
    }
    name.to_owned()
}

/// Whether a file called `name` may be what became of one called `of`.
pub(super) fn may_be(name: &str, of: &str) -> bool {
    name == of || live_name(name) == live_name(of) || inflated(name).starts_with(of)
}

/// Whether rotating, copying or compressing the file `of` makes a file called `name` beside it.
pub(super) fn is_made_of(name: &str, of: &str) -> bool {
    name != of && (inflated(name) == of || live_name(name) == of || inflated(name).starts_with(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_known_by_their_names() {
        for name in [
            "app.log",
            "app.log.1",
            "app.log.12.gz",
            "app.log-20240229",
            "app.log-20240229.zst",
            "app-2024-02-29.log",
            "app.2.log.gz",
            "app.log.2024-02-29T10:00:00Z",
            "app.log.old",
        ] {
            assert_eq!(live_name(name), "app.log", "{name}");
            assert!(may_be(name, "app.log"));
            assert_eq!(is_made_of(name, "app.log"), name != "app.log");
        }
        for name in ["10.csv", "data1.csv", "2024-02-29.json", "v2", "a.csv.gzx"] {
            assert_eq!(live_name(name), name);
        }
        assert!(is_made_of("app.log.1.gz", "app.log.1") && !is_made_of("app.log.1", "app.log.1"));
        assert!(may_be("app.log.2", "app.log.1") && !is_made_of("app.log.2", "app.log.1"));
        assert!(!may_be("apple.log", "app.log"));
        assert_eq!(live_name("data-1.csv"), "data.csv");
    }
}
