//! Paths that mean the same from every folder.
//!
//! A stream outlives the process that made it, so what its path says relative to a folder is made absolute at CREATE.
//! Files keep the short names for it: `orders.csv`, not the whole path to it.

use std::path::{Path, PathBuf, absolute};

use glob::Pattern;

use crate::error::Result;
use crate::reach::Touch;
use crate::store::{ObjectsUrl, is_url};

/// `path` without anything relative, and the folder that it was relative to; `None` when nothing in it was.
pub(crate) fn absolute_path(path: &str) -> Option<(String, String)> {
    if is_url(path) {
        return None;
    }
    let folder = std::env::current_dir().ok()?;
    let text = in_folder(path, &folder)?;
    Some((text, folder.to_str()?.to_owned()))
}

fn in_folder(path: &str, folder: &Path) -> Option<String> {
    if Path::new(path).exists() || !path.contains([',', '*', '?', '[']) {
        return if Path::new(path).is_absolute() { None } else { text(path, folder) };
    }
    let parts: Vec<&str> = parts(path).collect();
    if parts.iter().all(|part| Path::new(part).is_absolute()) {
        return None;
    }
    // What the folder's own name has of the characters of patterns and lists stands for itself.
    let literal = Pattern::escape(folder.to_str()?).replace(',', "[,]");
    let part = |part: &&str| match Path::new(part).is_absolute() {
        true => Some((*part).to_owned()),
        false => text(part, Path::new(&literal)),
    };
    Some(parts.iter().map(part).collect::<Option<Vec<_>>>()?.join(","))
}

/// `path` in `folder`, without `.` and doubled slashes.
fn text(path: &str, folder: &Path) -> Option<String> {
    // An empty path means nothing; its error names it.
    let path = Some(path).filter(|p| !p.is_empty())?;
    absolute(folder.join(path)).ok()?.to_str().map(str::to_owned)
}

/// The paths of a list: between commas, but for those in brackets.
pub(super) fn parts(path: &str) -> impl Iterator<Item = &str> {
    let mut in_brackets = false;
    path.split(move |c| {
        in_brackets = if in_brackets { c != ']' } else { c == '[' };
        c == ',' && !in_brackets
    })
    .map(str::trim)
}

/// What `path` stands for: itself, or those of the list that it is.
pub(super) fn touched(path: &str) -> Result<Vec<Touch>> {
    let touch = |path: &str| match is_url(path) {
        true => ObjectsUrl::parse(path).map(Touch::Objects),
        false => Ok(Touch::File(PathBuf::from(path))),
    };
    match path.contains(',') && !Path::new(path).exists() {
        true => parts(path).map(touch).collect(),
        false => Ok(vec![touch(path)?]),
    }
}

/// What a file at `path` is called: without `folder`, where it is in there.
pub(super) fn name_in<'a>(path: &'a str, folder: Option<&str>) -> &'a str {
    let rest = folder.and_then(|folder| path.strip_prefix(folder)).and_then(|rest| rest.strip_prefix('/'));
    rest.filter(|rest| !rest.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_kept_absolute() {
        let at = |path: &str, folder: &str| in_folder(path, Path::new(folder));
        assert_eq!(at("none.csv", "/a/b").as_deref(), Some("/a/b/none.csv"));
        assert_eq!(at("./x//none.csv", "/a").as_deref(), Some("/a/x/none.csv"));
        assert_eq!(at("../none.csv", "/a").as_deref(), Some("/a/../none.csv"));
        assert_eq!(at("results/", "/a").as_deref(), Some("/a/results/"));
        assert_eq!(at("/x/none.csv", "/a"), None);
        assert_eq!(at("/x/*.csv,/y", "/a"), None);
        assert_eq!(at("*.csv, /x/*.csv", "/a").as_deref(), Some("/a/*.csv,/x/*.csv"));
        assert_eq!(at("d/*.csv", "/a,[1]").as_deref(), Some("/a[,][[]1[]]/d/*.csv"));
        assert_eq!(at("d.csv", "/a,[1]").as_deref(), Some("/a,[1]/d.csv"));
    }

    #[test]
    fn lists_and_names() {
        assert_eq!(parts("a.csv, b[1,2].csv,/a[,]b/*").collect::<Vec<_>>(), ["a.csv", "b[1,2].csv", "/a[,]b/*"]);
        assert_eq!(name_in("/a/b.csv", Some("/a")), "b.csv");
        assert_eq!(name_in("/ab/c.csv", Some("/a")), "/ab/c.csv");
        assert_eq!(name_in("/a/b.csv", None), "/a/b.csv");
        assert_eq!(name_in("/a", Some("/a")), "/a");
    }
}
