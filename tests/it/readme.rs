//! The README's tables of options are those of the connectors.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::connector::built_in;
use millstream_engine::connector::registry::{Readable, Writable};
use millstream_engine::options::{Fallback, OptionSpec};

/// The section on connectors.
fn section() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Connectors\n").unwrap();
    section.split_once("\n## ").unwrap().0.to_owned()
}

/// The rows of its tables: the options of a row, and its cell of the default.
fn rows() -> Vec<(Vec<String>, String)> {
    let section = section();
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows = section.lines().filter(|l| l.starts_with("| `")).map(cells);
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(|row| (names(&row[0]), row[1].clone())).collect()
}

/// The options of all connectors as the README calls them.
fn listed() -> BTreeMap<String, Vec<OptionSpec>> {
    let mut all: BTreeMap<String, Vec<OptionSpec>> = BTreeMap::new();
    for connector in built_in().iter() {
        let read = connector.source().map(Readable::options).unwrap_or_default();
        for spec in read.into_iter().chain(connector.sink().map(Writable::options).unwrap_or_default()) {
            all.entry(spec.name.replace("<column>", "c")).or_default().push(spec);
        }
    }
    all
}

#[test]
fn every_option_has_its_row_and_every_row_its_option() {
    let (rows, listed) = (rows(), listed());
    let told: BTreeSet<&str> = rows.iter().flat_map(|(names, _)| names).map(String::as_str).collect();
    let has: BTreeSet<&str> = listed.keys().map(String::as_str).collect();
    let untold: Vec<_> = has.difference(&told).collect();
    assert!(untold.is_empty(), "README has no row for {untold:?}");
    let ours = [
        "parallelism",
        "checkpoint_interval",
        "idle_timeout",
        "retention",
        "changes",
        "content_retention",
        "retention_limit",
    ];
    let unknown: Vec<_> = told.difference(&has).filter(|name| !ours.contains(name)).collect();
    assert!(unknown.is_empty(), "no connector has {unknown:?}");
}

#[test]
fn defaults_are_those_of_the_table() {
    let (rows, section) = (rows(), section());
    for (name, specs) in listed() {
        for spec in specs {
            let word = match spec.fallback {
                Fallback::Required => "required".to_owned(),
                Fallback::Value(text) => format!("`{text}`"),
                Fallback::Otherwise(_) => continue,
            };
            let told = rows.iter().any(|(names, default)| names.contains(&name) && default.contains(&word));
            let told = told || section.contains(&format!("default {word}"));
            assert!(told, "README does not say that {name} is {word}");
        }
    }
}
