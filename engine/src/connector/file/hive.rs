//! Folders by Hive's convention: `day=2026-01-01/shop=north/part.parquet`. A value is written as text, with `%` and two
//! hexadecimal digits for characters that names of files do not have; NULL has a name of its own.

use std::fmt::Write as _;
use std::path::{Component, Path};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::Field;

use crate::error::{Error, Result};
use crate::format::convert::convert;

/// The name of the folder of NULL.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A column and its value in the name of a folder; `None` for NULL.
pub(super) type Key = (String, Option<String>);

/// The name of the folder for `value` of column `name`.
pub(super) fn folder_name(name: &str, value: Option<&str>) -> String {
    let mut folder = encoded(name);
    folder.push('=');
    match value {
        None => folder.push_str(NULL),
        // A text that is called like NULL is not NULL.
        Some(text) if text == NULL => folder.push_str(&text.replacen('_', "%5F", 1)),
        Some(text) => folder.push_str(&encoded(text)),
    }
    folder
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || " \"#%'*/:=?\\{}[]^<>|`~&".contains(c) {
            // Writing to a string does not fail.
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// What the names of the folders between `root` and the file at `path` say.
pub(super) fn keys(path: &Path, root: &Path) -> Vec<Key> {
    let Some(folders) = path.strip_prefix(root).ok().and_then(Path::parent) else { return vec![] };
    let key = |folder: Component<'_>| {
        let (name, value) = folder.as_os_str().to_str()?.split_once('=')?;
        let value = (value != NULL).then(|| decoded(value));
        (!name.is_empty()).then(|| (decoded(name), value))
    };
    folders.components().filter_map(key).collect()
}

/// The value of a key as the column that it is, of one row.
pub(super) fn constant(field: &Field, value: Option<&str>) -> Result<ArrayRef> {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![value]));
    let mut misfits = vec![];
    let made = convert(&text, field, &mut misfits)?;
    match misfits.pop() {
        Some(misfit) => Err(Error::data(format!("{}, as the name of its folder has it", misfit.reason))),
        None => Ok(made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        for value in
            [None, Some(""), Some("a b/c=d%"), Some(NULL), Some("größe"), Some(".."), Some("%41"), Some("x\ny")]
        {
            let folder = folder_name("a key", value);
            assert!(!folder.contains('/'), "{folder}");
            let path = Path::new("/root").join(&folder).join("n=1/part.csv");
            let expected = [("a key".to_owned(), value.map(str::to_owned)), ("n".to_owned(), Some("1".to_owned()))];
            assert_eq!(keys(&path, Path::new("/root")), expected, "{folder}");
        }
        assert_eq!(folder_name("k", None), "k=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(keys(Path::new("/a=1/b/c=2.csv"), Path::new("/a=1")), []);
        assert_eq!(keys(Path::new("/elsewhere/a=1/x"), Path::new("/root")), []);
    }
}
