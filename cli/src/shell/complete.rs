//! Completion: what may stand at the cursor, by what stands before it.

use std::sync::{Arc, Mutex, PoisonError};

use millstream_sql::session::ObjectInfo;
use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::{commands, words};
use crate::export::quoted;
use crate::lex::{self, Kind, Token};

/// The names that can be completed; refreshed when statements have been executed.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Streams and views.
    pub(crate) objects: Vec<NamedObject>,
    /// Settings with a line on each.
    pub(crate) settings: Vec<(String, String)>,
}

/// A stream or view.
#[derive(Clone, Debug)]
pub(crate) struct NamedObject {
    name: String,
    kind: String,
    /// Columns with their types.
    columns: Vec<(String, String)>,
}

impl From<&ObjectInfo> for NamedObject {
    fn from(object: &ObjectInfo) -> Self {
        let columns =
            object.schema.fields().iter().map(|f| (f.name().clone(), super::describe::type_name(f.data_type())));
        NamedObject {
            name: super::describe::full_name(object),
            kind: super::describe::kind_name(object.kind).to_owned(),
            columns: columns.collect(),
        }
    }
}

/// Names that the prompt and the shell share.
pub(crate) type SharedNames = Arc<Mutex<Names>>;

/// Completes from shared names.
pub(crate) struct NameCompleter(pub(crate) SharedNames);

impl Completer for NameCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        CompletionResult::fresh(complete(&names, line, pos))
    }
}

/// A candidate: what to write and a word on it.
type Candidate = (String, Option<String>);

/// What may stand at byte `pos` of `line`.
pub(crate) fn complete(names: &Names, line: &str, pos: usize) -> Vec<Suggestion> {
    let pos = line.floor_char_boundary(pos);
    let before = line.get(..pos).unwrap_or(line);
    if before.starts_with('\\') && !before.contains(char::is_whitespace) {
        let known = commands::COMMANDS.iter().map(|(name, arguments, meaning)| {
            (format!("{name}{}", if arguments.is_empty() { "" } else { " " }), Some((*meaning).to_owned()))
        });
        return matching(before, 0, pos, known.collect());
    }
    let tokens = lex::tokens(before);
    // inside of a string or a comment there is nothing to complete
    if tokens.last().is_some_and(|t| matches!(t.kind, Kind::Text) && !t.closed || t.kind == Kind::Comment) {
        return Vec::new();
    }
    let start =
        before.rfind(|c| !lex::is_word(c)).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = before.get(start..).unwrap_or("");
    let context: Vec<&Token<'_>> = tokens.iter().filter(|t| t.counts() && t.start < start).collect();
    if let Some(qualifier) = qualifier(&context) {
        return matching(word, start, pos, columns_of(names, line, &qualifier));
    }
    matching(word, start, pos, candidates(names, line, word, before, &context))
}

/// The name before the dot at the cursor.
fn qualifier(context: &[&Token<'_>]) -> Option<String> {
    match context {
        [.., name, dot] if dot.text == "." => name.name(),
        _ => None,
    }
}

/// Words that only few can follow.
const NEXT: &[(&str, &[&str])] = &[
    ("CREATE", &["STREAM", "VIEW", "OR"]),
    ("DELETE", &["FROM"]),
    ("DO", &["NOTHING", "UPDATE"]),
    ("DROP", &["STREAM", "VIEW"]),
    ("PAUSE", &["STREAM"]),
    ("RESUME", &["STREAM"]),
    ("EMIT", &["CHANGES", "ON", "EVERY"]),
];

fn candidates(names: &Names, line: &str, word: &str, before: &str, context: &[&Token<'_>]) -> Vec<Candidate> {
    let objects = || names.objects.iter().map(|o| (quoted(&o.name), Some(o.kind.clone())));
    let last = context.last();
    let after = |keywords: &[&str]| last.is_some_and(|t| keywords.iter().any(|k| t.is(k)));
    if after(&["FROM", "JOIN"]) {
        let windows = words::WINDOWS.iter().map(|(name, about)| (cased(name, word), Some((*about).to_owned())));
        return objects().chain(windows).collect();
    }
    let opens_window = matches!(context, [.., function, open] if open.text == "("
        && words::WINDOWS.iter().any(|(name, _)| function.is(name.trim_end_matches('('))));
    // Not the one of ON CONFLICT DO UPDATE.
    let updates = after(&["UPDATE"]) && context.len() == 1;
    if after(&["INTO", "STREAM", "DESCRIBE", "VIEW", "TABLE", "TRUNCATE"])
        || updates
        || opens_window
        || before.starts_with("\\d ")
    {
        return objects().collect();
    }
    if after(&["SET"]) && context.iter().any(|t| t.is("UPDATE")) {
        return named_columns(names, line);
    }
    if after(&["SET", "SHOW"]) {
        let settings = names.settings.iter().map(|(name, about)| (name.clone(), Some(about.clone())));
        let listings = ["STREAMS", "JOBS", "TABLES", "ALL"].iter().filter(|_| after(&["SHOW"]));
        return listings.map(|w| (cased(w, word), None)).chain(settings).collect();
    }
    if let Some((_, next)) = NEXT.iter().find(|(word, _)| after(&[word])) {
        return next.iter().map(|w| (cased(w, word), None)).collect();
    }
    let mut found = named_columns(names, line);
    if word.is_empty() && last.is_some() {
        return found;
    }
    found.extend(objects());
    found.extend(words::KEYWORDS.iter().map(|k| (cased(k, word), None)));
    found.extend(words::FUNCTIONS.iter().map(|f| ((*f).to_owned(), Some("function".to_owned()))));
    found
}

/// Keywords follow the case in which the word was begun.
fn cased(keyword: &str, word: &str) -> String {
    if word.chars().any(char::is_lowercase) { keyword.to_lowercase() } else { keyword.to_owned() }
}

/// The columns of the objects that the line names; of all objects if it names none.
fn named_columns(names: &Names, line: &str) -> Vec<Candidate> {
    let used: Vec<String> = lex::tokens(line).iter().filter_map(Token::name).collect();
    let mut objects: Vec<&NamedObject> = names.objects.iter().filter(|o| used.contains(&o.name)).collect();
    if objects.is_empty() {
        // system tables have columns that are called like keywords
        objects = names.objects.iter().filter(|o| !o.name.contains('.')).collect();
    }
    let columns = objects.iter().flat_map(|o| o.columns.iter().map(move |(name, kind)| (o, name, kind)));
    columns.map(|(o, name, kind)| (quoted(name), Some(format!("{kind}, {}", o.name)))).collect()
}

/// The columns of the object that is called `qualifier`, by its name or by an alias in the line.
fn columns_of(names: &Names, line: &str, qualifier: &str) -> Vec<Candidate> {
    let tokens: Vec<Token<'_>> = lex::tokens(line).into_iter().filter(Token::counts).collect();
    let aliased = tokens.iter().enumerate().find_map(|(i, token)| {
        let name = token.name()?;
        let next = tokens.get(i + 1)?;
        let alias = if next.is("AS") { tokens.get(i + 2)? } else { next };
        (alias.name()? == qualifier && names.objects.iter().any(|o| o.name == name)).then_some(name)
    });
    let name = aliased.unwrap_or_else(|| qualifier.to_owned());
    let object = names.objects.iter().find(|o| o.name == name);
    let columns = object.map_or(&[][..], |o| &o.columns);
    let inner = names.objects.iter().filter_map(|o| Some((o.name.strip_prefix(&format!("{qualifier}."))?, &o.kind)));
    columns
        .iter()
        .map(|(name, kind)| (quoted(name), Some(kind.clone())))
        .chain(inner.map(|(name, kind)| (quoted(name), Some(kind.clone()))))
        .collect()
}

fn matching(word: &str, start: usize, pos: usize, candidates: Vec<Candidate>) -> Vec<Suggestion> {
    let lower = word.to_lowercase();
    let mut seen = std::collections::HashSet::new();
    candidates
        .into_iter()
        .filter(|(value, _)| value.trim_start_matches('"').to_lowercase().starts_with(&lower))
        .filter(|(value, _)| seen.insert(value.clone()))
        .map(|(value, description)| Suggestion {
            append_whitespace: !value.ends_with(['(', ' ']) && !word.is_empty() && description.is_none(),
            value,
            description,
            span: Span::new(start, pos),
            ..Suggestion::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let object = |name: &str, columns: &[&str]| NamedObject {
            name: name.into(),
            kind: "stream".into(),
            columns: columns.iter().map(|c| ((*c).into(), "BIGINT".into())).collect(),
        };
        Names {
            objects: vec![
                object("bids", &["auction", "price"]),
                object("Odd Name", &["x"]),
                object("millstream.dead_letters", &["reason"]),
            ],
            settings: vec![("idle_timeout".into(), "when a split is idle".into())],
        }
    }

    fn values(line: &str) -> Vec<String> {
        complete(&names(), line, line.len()).into_iter().map(|s| s.value).collect()
    }

    #[test]
    fn after_from_come_streams_and_windows() {
        let found = values("SELECT * FROM ");
        assert_eq!(&found[..2], ["bids", "\"Odd Name\""]);
        assert!(found.contains(&"TUMBLE(".to_owned()));
        assert_eq!(values("SELECT * FROM TUMBLE(b"), ["bids"]);
        assert_eq!(values("select * from bi"), ["bids"]);
    }

    #[test]
    fn columns_of_the_named_stream_come_first() {
        let line = "SELECT  FROM bids";
        let found: Vec<_> = complete(&names(), line, 7).into_iter().map(|s| s.value).collect();
        assert_eq!(found, ["auction", "price"]);
        assert_eq!(values("SELECT * FROM bids b WHERE b.p"), ["price"]);
        assert_eq!(values("SELECT * FROM bids AS b WHERE b."), ["auction", "price"]);
        assert_eq!(values("SELECT * FROM millstream."), ["dead_letters"]);
    }

    #[test]
    fn keywords_follow_the_case() {
        assert!(values("SEL").contains(&"SELECT".to_owned()));
        assert!(values("sel").contains(&"select".to_owned()));
    }

    #[test]
    fn few_words_follow_some() {
        assert_eq!(values("CREATE ST"), ["STREAM"]);
        assert_eq!(values("select * from bids emit c"), ["changes"]);
    }

    #[test]
    fn commands_and_settings() {
        assert_eq!(values("\\wa"), ["\\watch "]);
        assert_eq!(values("\\d b"), ["bids"]);
        assert_eq!(values("SET idle"), ["idle_timeout"]);
        assert!(values("SHOW J").contains(&"JOBS".to_owned()));
    }

    #[test]
    fn what_changes_rows() {
        assert_eq!(values("DELETE F"), ["FROM"]);
        assert_eq!(values("UPDATE b"), ["bids"]);
        assert_eq!(values("UPDATE bids SET "), ["auction", "price"]);
        assert_eq!(values("TRUNCATE b"), ["bids"]);
    }

    #[test]
    fn nothing_inside_of_strings() {
        assert!(values("SELECT 'sel").is_empty());
        assert!(values("SELECT 1 -- sel").is_empty());
    }

    #[test]
    fn any_position_is_fine() {
        let line = "SELECT é, \"日本\" FROM bids b";
        for pos in 0..=line.len() {
            complete(&names(), line, pos);
        }
    }
}
