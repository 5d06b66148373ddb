//! What the repository promises about itself: one Arrow, licences that permit, crates that point one way, files that
//! are short and say what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The most lines of a file before its tests.
const LINES: usize = 500;
/// The most lines of a function, its attributes and documentation not counted.
const FUNCTION: usize = 70;
/// Files that may be longer, each with the reason. Best empty.
const LONGER: &[(&str, &str)] = &[];
/// Words that say nothing about what a module is for.
const EMPTY_NAMES: [&str; 9] =
    ["utils", "util", "helpers", "helper", "common", "types", "misc", "manager", "processor"];
/// Crates of which the tree may hold one version only: values of theirs cross our interfaces.
const SINGLE: [&str; 8] =
    ["arrow", "arrow-array", "arrow-flight", "datafusion", "object_store", "parquet", "sqlparser", "tonic"];
/// Licences under which anyone may do what they like with the binary.
const PERMISSIVE: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];
/// What each of our crates may depend on, of ours.
const DIRECTION: [(&str, &[&str]); 7] = [
    ("engine", &[]),
    ("sql", &["engine"]),
    ("flight", &["engine", "sql"]),
    ("cli", &["engine", "sql", "flight"]),
    ("tests", &["engine", "sql", "flight", "cli"]),
    ("benches", &["engine", "sql", "flight", "cli"]),
    ("examples", &["engine", "sql", "flight", "cli"]),
];
/// Words that tie the repository to one machine or one registry.
const PLACES: [&str; 7] =
    ["/work/", "/home/", "/Users/", "crates.io", "pypi.org", "pythonhosted.org", "static.rust-lang.org"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    // What is built here; other platforms' crates may not have been fetched.
    let only_host = ["--filter-platform".to_owned(), host.to_owned(), "--locked".to_owned()];
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(only_host).exec().unwrap()
}

/// Paths of the files in the repository, from its root.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter(|f| root().join(f).is_file()).map(str::to_owned).collect()
}

fn rust_files() -> Vec<(String, String)> {
    let read = |f: String| {
        let text = std::fs::read_to_string(root().join(&f)).unwrap();
        (f, text)
    };
    let all: Vec<_> = files().into_iter().filter(|f| f.ends_with(".rs")).map(read).collect();
    assert!(all.len() > 100, "found only {} files", all.len());
    all
}

/// Whether `licence`, an SPDX expression, lets us choose permissive terms.
fn permits(licence: &str) -> bool {
    let licence = licence.replace(['(', ')'], " ").replace('/', " OR ");
    let one = |l: &str| PERMISSIVE.contains(&l.trim());
    // In such lists parentheses only ever group a choice, so AND binds last.
    licence.split(" AND ").all(|part| part.split(" OR ").any(one))
}

fn ours(package: &Package) -> Option<&str> {
    package.name.strip_prefix("millstream-").filter(|_| package.source.is_none())
}

#[test]
fn one_version_of_the_crates_whose_types_we_share() {
    let metadata = metadata();
    for name in SINGLE {
        let found: BTreeSet<_> =
            metadata.packages.iter().filter(|p| p.name.as_str() == name).map(|p| p.version.to_string()).collect();
        assert_eq!(found.len(), 1, "versions of {name} in the tree: {found:?}");
    }
}

#[test]
fn licences_permit() {
    let mut refused = BTreeMap::new();
    for package in metadata().packages {
        let licence = package.license.clone().unwrap_or_default();
        if !permits(&licence) {
            refused.insert(format!("{} {}", package.name, package.version), licence);
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn a_choice_of_licences_is_read_as_one() {
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(permits(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MPL-2.0"] {
        assert!(!permits(bad), "{bad}");
    }
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let mut seen = 0;
    for package in metadata.workspace_packages() {
        let Some(name) = ours(package) else { panic!("a crate named {}", package.name) };
        let (_, allowed) = DIRECTION.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("new crate {name}"));
        for dependency in &package.dependencies {
            if let Some(on) = dependency.name.strip_prefix("millstream-") {
                assert!(allowed.contains(&on), "{name} depends on {on}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, DIRECTION.len());
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = rust_files().into_iter().filter(|(_, t)| !t.starts_with("//! ")).map(|(f, _)| f).collect();
    assert!(silent.is_empty(), "these do not begin with //!: {silent:#?}");
}

#[test]
fn files_are_short() {
    let mut long = BTreeMap::new();
    for (file, text) in rust_files() {
        if file.ends_with("tests.rs") || file.starts_with("tests/it/") {
            continue;
        }
        let before_tests = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = before_tests.lines().count();
        if lines > LINES {
            long.insert(file, lines);
        }
    }
    for (file, reason) in LONGER {
        assert!(long.remove(*file).is_some(), "{file} is short now: take it off the list ({reason})");
    }
    assert!(long.is_empty(), "longer than {LINES} lines before their tests: {long:#?}");
}

#[test]
fn modules_have_names() {
    for (file, _) in rust_files() {
        let path = Path::new(&file);
        let stem = path.file_stem().unwrap().to_string_lossy();
        let folders = path.parent().into_iter().flat_map(Path::iter).map(|c| c.to_string_lossy());
        for word in folders.chain([stem.clone()]) {
            assert!(!EMPTY_NAMES.contains(&&*word), "{file}: \"{word}\" does not say what it is for");
        }
    }
}

#[test]
fn nothing_names_a_place() {
    for file in files() {
        // The lock file is Cargo's own; this file lists the words.
        if file == "Cargo.lock" || file == "tests/it/tidy.rs" {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (i, line) in text.lines().enumerate() {
            let place = PLACES.iter().find(|p| line.contains(**p));
            assert!(place.is_none(), "{file}:{}: {}", i + 1, line.trim());
        }
    }
}

#[test]
fn functions_are_short() {
    let begins = |line: &str| {
        let code = line.trim_start();
        let words: Vec<&str> = code.split(' ').collect();
        let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe"];
        let at = words.iter().position(|w| !modifiers.contains(w));
        (at.is_some_and(|at| words[at] == "fn") && !line.ends_with(';')).then(|| line.len() - code.len())
    };
    let mut long = vec![];
    for (file, text) in rust_files() {
        let lines: Vec<&str> = text.lines().take_while(|l| *l != "#[cfg(test)]").collect();
        if file.ends_with("tests.rs") {
            continue;
        }
        for (from, line) in lines.iter().enumerate() {
            let Some(indent) = begins(line) else { continue };
            let end = format!("{}}}", &line[..indent]);
            let length = lines[from..].iter().position(|l| *l == end).map_or(0, |n| n + 1);
            if length > FUNCTION {
                long.push(format!("{file}:{}: {length} lines", from + 1));
            }
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

/// The room of a file of one of our crates: what is directly below `src`.
fn room(file: &str) -> Option<(&str, &str)> {
    let (name, below) = file.split_once("/src/")?;
    let room = below.split('/').next()?;
    Some((name, room.strip_suffix(".rs").unwrap_or(room)))
}

/// The rooms of its crate that `text` names, tests and comments left out.
fn named_rooms(text: &str) -> BTreeSet<String> {
    let code = text.lines().take_while(|l| *l != "#[cfg(test)]").filter(|l| !l.trim_start().starts_with("//"));
    let code: String = code.map(|l| format!("{l}\n")).collect();
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut named: BTreeSet<String> = code.split("crate::").skip(1).map(word).collect();
    // `use crate::{a, b::c};`
    for list in code.split("crate::{").skip(1) {
        let list = list.split('}').next().unwrap_or_default();
        named.extend(list.split(',').map(|item| word(item.trim())));
    }
    named
}

#[test]
fn rooms_use_each_other_one_way() {
    let mut uses: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (file, text) in rust_files() {
        let Some((name, room)) = room(&file).filter(|(_, room)| !["lib", "main"].contains(room)) else { continue };
        if file.ends_with("/tests.rs") || file.contains("/tests/") {
            continue;
        }
        uses.entry((name.to_owned(), room.to_owned())).or_default().extend(named_rooms(&text));
    }
    // Rooms that use no other that is still there go, until none is left but those in circles.
    loop {
        let left: BTreeSet<(String, String)> = uses.keys().cloned().collect();
        let is_free = |(name, room): &(String, String), used: &BTreeSet<String>| {
            !used.iter().any(|u| u != room && left.contains(&(name.clone(), u.clone())))
        };
        let before = uses.len();
        uses.retain(|of, used| !is_free(of, used));
        if uses.len() == before {
            break;
        }
    }
    assert_eq!(
        uses.keys().collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "rooms that use each other in circles"
    );
}
