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

/// The module that `file`, of one of our crates, is: the crate, and the way to it.
fn module(file: &str) -> Option<Vec<String>> {
    let (name, below) = file.split_once("/src/")?;
    let mut way: Vec<String> =
        [name].into_iter().chain(below.strip_suffix(".rs")?.split('/')).map(str::to_owned).collect();
    way.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    Some(way)
}

/// Reads the path that `text` begins with, as one goes on behind `before`, or all those in braces; gives what is left of `text`.
fn read_paths<'a>(text: &'a str, before: &[&'a str], paths: &mut Vec<Vec<&'a str>>) -> &'a str {
    let mut path = before.to_vec();
    let mut text = text.trim_start();
    loop {
        if let Some(mut items) = text.strip_prefix('{') {
            while let Some(next) = items.trim_start().chars().next().filter(|c| *c != '}') {
                let skipped = usize::from(next == ',');
                let left = read_paths(&items.trim_start()[skipped..], &path, paths);
                // `as name`, and what is no list of paths after all.
                let end = left.find([',', '}']).unwrap_or(left.len());
                items = &left[end..];
            }
            return items.trim_start().strip_prefix('}').unwrap_or_default();
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (word, left) = text.split_at(end);
        match word {
            // What follows the last comma of a list.
            "" if path.len() == before.len() => return left,
            "" => {}
            word => path.push(word),
        }
        match left.strip_prefix("::") {
            Some(left) if !word.is_empty() => text = left,
            _ => {
                paths.push(path);
                return left;
            }
        }
    }
}

/// The paths in `text` that begin with `crate`, `super` or `self`, tests and comments left out.
fn paths_in(code: &str) -> Vec<Vec<&str>> {
    let mut paths = vec![];
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_ascii_alphanumeric() && !"_:".contains(c)) {
                read_paths(&code[at..], &[], &mut paths);
            }
        }
    }
    paths
}

/// The module of `modules` that `path` in module `from` leads to or into.
fn led_to(from: &[String], path: &[&str], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut way = if path.first() == Some(&"crate") { from[..1].to_vec() } else { from.to_vec() };
    for step in path {
        match *step {
            "crate" | "self" => {}
            "super" => drop(way.pop()),
            name => way.push(name.to_owned()),
        }
    }
    while !way.is_empty() && !modules.contains(&way) {
        way.pop();
    }
    Some(way).filter(|way| !way.is_empty())
}

/// Which modules of its crate each module names. What a `mod.rs` has of the files beside it by their bare names does not
/// count: most of it is what it gives on.
fn named_modules() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let mut texts: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (file, text) in rust_files() {
        if file.ends_with("/tests.rs") || file.contains("/tests/") {
            continue;
        }
        let Some(module) = module(&file) else { continue };
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        texts.insert(module, code);
    }
    let modules: BTreeSet<Vec<String>> = texts.keys().cloned().collect();
    let named = |(module, code): (Vec<String>, String)| {
        let named = paths_in(&code).into_iter().filter_map(|path| led_to(&module, &path, &modules));
        let others = named.filter(|other| *other != module).collect();
        (module, others)
    };
    texts.into_iter().map(named).collect()
}

/// Those of `uses` that are in circles, or between them, as `a uses b`.
fn circles(mut uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<String> {
    // Whoever uses none that is still there, or is used by none, goes.
    loop {
        let used: BTreeSet<Vec<String>> = uses.values().flatten().cloned().collect();
        let left: BTreeSet<Vec<String>> = uses.keys().filter(|of| used.contains(*of)).cloned().collect();
        let before = uses.values().map(BTreeSet::len).sum::<usize>() + uses.len();
        uses.values_mut().for_each(|used| used.retain(|other| left.contains(other)));
        uses.retain(|of, used| left.contains(of) && !used.is_empty());
        if uses.values().map(BTreeSet::len).sum::<usize>() + uses.len() == before {
            break;
        }
    }
    let pair = |a: &[String], b: &[String]| format!("{} uses {}", a.join("/"), b.join("/"));
    uses.iter().flat_map(|(of, used)| used.iter().map(move |other| pair(of, other))).collect()
}

#[test]
fn paths_are_read_as_they_are_meant() {
    let code = "use crate::{a, b::{self, c as d}};\nuse super::{\n    e::F,\n};\nlet x = crate::g::h(self::i);";
    let read: Vec<String> = paths_in(code).into_iter().map(|path| path.join("::")).collect();
    let expected = ["crate::a", "crate::b::self", "crate::b::c", "crate::g::h", "super::e::F", "self::i"];
    assert_eq!(read, expected);
}

#[test]
fn rooms_use_each_other_one_way() {
    let mut uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (module, named) in named_modules() {
        let Some(room) = module.get(..2) else { continue };
        let others = named.iter().filter_map(|other| other.get(..2)).filter(|other| *other != room);
        uses.entry(room.to_vec()).or_default().extend(others.map(<[String]>::to_vec));
    }
    assert_eq!(
        circles(uses),
        Vec::<String>::new(),
        "rooms use each other in circles: what both need belongs into the lower one"
    );
}

#[test]
fn files_of_a_room_use_each_other_one_way() {
    let mut uses = named_modules();
    for (module, named) in &mut uses {
        named.retain(|other| module.len() > 1 && other.get(..2) == module.get(..2));
    }
    assert_eq!(
        circles(uses),
        Vec::<String>::new(),
        "files use each other in circles: what both need belongs into the lower one, or into a file of its own"
    );
}
