//! `WITH (…)` options: what each is ([`OptionSpec`]), and on their way to typed structs ([`Options`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::reach::Reach;

/// An option: connectors read by it what a statement says, and the lists of options are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// What it is called.
    pub name: &'static str,
    /// What may be written.
    pub takes: Takes,
    /// What holds where it is not written.
    pub fallback: Fallback,
    /// What one could write.
    pub example: &'static str,
    /// What it is for, in a line.
    pub help: &'static str,
    /// Whether its value is shown to nobody. Its name tells so ([`tells_secret`]).
    pub secret: bool,
}

/// What begins a value that is the name of a secret.
pub const SECRET: &str = "secret:";

/// Whether an option of that name holds what is shown to nobody. It goes by the name alone, so that a statement can be
/// cut where the connector that it names is not known.
pub fn tells_secret(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "authorization",
        "api_key",
        "private_key",
    ];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Whether `value` is an address with a user and a password in it: `http://user:password@host`.
pub fn tells_login(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
    })
}

/// What may be written as the value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Any text.
    Text,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A length of time.
    Duration,
    /// One ASCII character, or `tab`.
    Character,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// What holds where an option is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be written.
    Required,
    /// As if this had been written.
    Value(&'static str),
    /// What these words say.
    Otherwise(&'static str),
}

impl OptionSpec {
    /// An option that may be left out: nothing comes of it then.
    pub const fn new(name: &'static str, takes: Takes, example: &'static str, help: &'static str) -> Self {
        OptionSpec { name, takes, fallback: Fallback::Otherwise("none"), example, help, secret: false }
    }

    /// It must be written.
    pub const fn required(self) -> Self {
        OptionSpec { fallback: Fallback::Required, ..self }
    }

    /// Left out, it is as if `value` had been written.
    pub const fn or(self, value: &'static str) -> Self {
        OptionSpec { fallback: Fallback::Value(value), ..self }
    }

    /// Left out, it is what `words` say.
    pub const fn otherwise(self, words: &'static str) -> Self {
        OptionSpec { fallback: Fallback::Otherwise(words), ..self }
    }

    /// Its value is shown to nobody; it is written as `secret:name`.
    pub const fn secret(self) -> Self {
        OptionSpec { secret: true, ..self }
    }

    /// The words that it takes, where they are listed.
    pub const fn words(&self) -> &'static [&'static str] {
        match self.takes {
            Takes::OneOf(words) => words,
            _ => &[],
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Takes::Text => "text",
            Takes::Whole => "whole number",
            Takes::Number => "number",
            Takes::Flag => "true or false",
            Takes::Duration => "length of time",
            Takes::Character => "one character",
            Takes::OneOf(words) => return f.write_str(&words.join(" | ")),
        })
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fallback::Required => "required",
            Fallback::Value(text) | Fallback::Otherwise(text) => text,
        })
    }
}

/// Options as they were written. Each connector takes the ones it knows and then calls
/// [`Options::finish`], which refuses the rest by name, so that no option is silently ignored.
#[derive(Clone, Default)]
pub struct Options {
    owner: String,
    /// Before the names of these options in messages: that of the group they are in.
    group: String,
    values: BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    /// What was found out when the stream was created, where it was not written.
    found: BTreeMap<String, String>,
    /// How far what is opened with them reaches, where that is bounded.
    reach: Option<Arc<Reach>>,
}

/// Names only: what a value is may be nobody's business.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("owner", &self.owner)
            .field("names", &self.values.keys())
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The options of `owner` (as in `stream "bids"`).
    pub fn new(owner: impl Into<String>, values: BTreeMap<String, String>) -> Self {
        Options { owner: owner.into(), values, ..Options::default() }
    }

    /// With what was found out when the stream was created.
    pub fn with_found(self, found: BTreeMap<String, String>) -> Self {
        Options { found, ..self }
    }

    /// For who may touch no more than `reach`.
    pub fn within(self, reach: Arc<Reach>) -> Self {
        Options { reach: Some(reach), ..self }
    }

    /// What may be touched, where that is bounded: connectors check by it what they find out themselves.
    pub fn reach(&self) -> Option<&Arc<Reach>> {
        self.reach.as_ref()
    }

    /// With other values for those that `change` gives some for.
    pub fn with_values(mut self, mut change: impl FnMut(&str, &str) -> Result<Option<String>>) -> Result<Self> {
        for (name, value) in &mut self.values {
            if let Some(other) = change(name, value)? {
                *value = other;
            }
        }
        Ok(self)
    }

    /// The options that were written and have not been taken, by name.
    pub fn written(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What was found out as option `name` when the stream was created.
    pub fn found(&self, name: &str) -> Option<&str> {
        self.found.get(name).map(String::as_str)
    }

    /// Who the options belong to.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Takes the options that begin with `group` (as in `fields.price.`) as options of their own, without
    /// it; `shown` says in hints what they look like.
    pub fn group(&mut self, group: &str, shown: &'static str) -> Options {
        self.known.insert(shown);
        let matches = |name: &String| name.get(..group.len()).is_some_and(|start| start.eq_ignore_ascii_case(group));
        let (own, rest) = std::mem::take(&mut self.values).into_iter().partition(|(name, _)| matches(name));
        self.values = rest;
        let own: BTreeMap<String, String> = own;
        let values = own.into_iter().map(|(name, value)| (name[group.len()..].to_owned(), value)).collect();
        let group = format!("{}{group}", self.group);
        Options { owner: self.owner.clone(), group, values, ..Options::default() }
    }

    /// Whether the option was written.
    pub fn is_set(&self, spec: &OptionSpec) -> bool {
        self.values.contains_key(spec.name)
    }

    /// Takes the text of the option, or what it is when it is left out.
    pub fn text(&mut self, spec: &OptionSpec) -> Option<String> {
        self.known.insert(spec.name);
        let default = match spec.fallback {
            Fallback::Value(text) => Some(text.to_owned()),
            Fallback::Required | Fallback::Otherwise(_) => None,
        };
        self.values.remove(spec.name).or(default)
    }

    /// Takes the text of the option, which must be there.
    pub fn required(&mut self, spec: &OptionSpec) -> Result<String> {
        let (owner, group) = self.context();
        let (name, example) = (spec.name, spec.example);
        self.text(spec).ok_or_else(|| {
            let hint = match nearest(name, self.values.keys().map(String::as_str)) {
                Some(near) => format!("Write {group}{name} instead of \"{group}{near}\"."),
                None => format!("Add {group}{name} = '{example}'."),
            };
            Error::invalid(format!("{owner} needs option \"{group}{name}\"")).with_hint(hint)
        })
    }

    /// Takes the option as a number or other plain value.
    pub fn value<T: FromStr>(&mut self, spec: &OptionSpec, expected: &str) -> Result<Option<T>> {
        let (owner, group) = self.context();
        let parse = |text: String| {
            text.replace('_', "").parse::<T>().map_err(|_| {
                let (name, text) = (spec.name, shown(spec, &text));
                Error::invalid(format!("option \"{group}{name}\" of {owner} is '{text}', which is not {expected}"))
            })
        };
        self.text(spec).map(parse).transpose()
    }

    /// Takes the option as true or false.
    pub fn flag(&mut self, spec: &OptionSpec) -> Result<bool> {
        let (owner, group) = self.context();
        match self.text(spec).unwrap_or_default().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Ok(true),
            "false" | "f" | "no" | "off" | "0" => Ok(false),
            text => Err(Error::invalid(format!(
                "option \"{group}{}\" of {owner} is '{}', which is not true or false",
                spec.name,
                shown(spec, text)
            ))),
        }
    }

    /// Takes the option as one of its words.
    pub fn choice(&mut self, spec: &OptionSpec) -> Result<Option<&'static str>> {
        let (owner, group) = self.context();
        let words = spec.words();
        let parse = |text: String| {
            words.iter().find(|a| a.eq_ignore_ascii_case(&text)).copied().ok_or_else(|| {
                Error::invalid(format!("option \"{group}{}\" of {owner} is '{}'", spec.name, shown(spec, &text)))
                    .with_hint(format!("Write one of: {}.", words.join(", ")))
            })
        };
        self.text(spec).map(parse).transpose()
    }

    /// Takes the option as a length of time: `500 ms`, `10s`, `5 minutes`, or seconds as a number.
    pub fn duration(&mut self, spec: &OptionSpec) -> Result<Option<Duration>> {
        let (owner, group) = self.context();
        let parse = |text: String| {
            parse_duration(&text).ok_or_else(|| {
                let (name, text) = (spec.name, shown(spec, &text));
                Error::invalid(format!(
                    "option \"{group}{name}\" of {owner} is '{text}', which is not a length of time"
                ))
                .with_hint("Write it like '500 ms', '10 s' or '5 min'.")
            })
        };
        self.text(spec).map(parse).transpose()
    }

    /// For messages that are made while an option is taken.
    fn context(&self) -> (String, String) {
        (self.owner.clone(), self.group.clone())
    }

    /// Ends the reading: any option that is left is an error that names it and those there are.
    pub fn finish(self) -> Result<()> {
        let Some(left) = self.values.keys().next() else { return Ok(()) };
        let known: Vec<_> = self.known.iter().copied().collect();
        let near = nearest(left, known.iter().copied()).map(|near| format!("Did you mean {near}? "));
        Err(Error::invalid(format!("{} has no option \"{}{left}\"", self.owner, self.group)).with_hint(format!(
            "{}Its options are: {}.",
            near.unwrap_or_default(),
            known.join(", ")
        )))
    }
}

/// The value of an option, as messages may have it.
fn shown<'a>(spec: &OptionSpec, text: &'a str) -> &'a str {
    if spec.secret || tells_secret(spec.name) { "***" } else { text }
}

/// Reads `500 ms`, `10s`, `1.5 min`, `2 hours`, `1d`, or a bare number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let seconds = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: OptionSpec = OptionSpec::new("path", Takes::Text, "*.csv", "").required();
    const ROWS: OptionSpec = OptionSpec::new("rows", Takes::Whole, "5", "").or("7");
    const MIN: OptionSpec = OptionSpec::new("min", Takes::Whole, "0", "");

    #[test]
    fn what_is_left_out_is_its_default() {
        let mut none = Options::new("stream \"s\"", BTreeMap::new());
        assert_eq!(none.value::<u64>(&ROWS, "a whole number").expect("a number"), Some(7));
        assert_eq!(none.value::<u64>(&MIN, "a whole number").expect("a number"), None);
        assert!(!none.is_set(&ROWS) && none.finish().is_ok());
        assert_eq!((ROWS.fallback.to_string(), PATH.fallback.to_string()), ("7".to_owned(), "required".to_owned()));
        assert_eq!(Takes::OneOf(&["a", "b"]).to_string(), "a | b");
    }

    #[test]
    fn secrets_are_not_shown() {
        const PIN: OptionSpec = OptionSpec::new("pin_token", Takes::Whole, "1", "").secret();
        let mut o = Options::new("stream \"s\"", [("pin_token".to_owned(), "hunter2".to_owned())].into());
        assert!(!format!("{o:?}").contains("hunter2"));
        let e = o.value::<u64>(&PIN, "a whole number").expect_err("no number");
        assert_eq!(e.message(), "option \"pin_token\" of stream \"s\" is '***', which is not a whole number");
        assert!(["SASL.Password", "api_token", "client_secret"].into_iter().all(tells_secret));
        assert!(tells_login("http://ann:hunter2@h/x") && tells_login("a,grpc+tls://a:b@h:1"));
        assert!(!tells_login("http://h:1/a:b@c") && !tells_login("a:b@c") && !tells_login("http://ann@h"));
        assert!(!["path", "tls_key", "primary_key"].into_iter().any(tells_secret));
    }

    #[test]
    fn unknown_options_are_named() {
        let mut o = Options::new("stream \"s\"", [("pth".to_owned(), "x".to_owned())].into());
        assert!(o.text(&PATH).is_none());
        let e = o.finish().expect_err("pth is not known");
        assert_eq!(e.message(), "stream \"s\" has no option \"pth\"");
        assert_eq!(e.hint(), Some("Did you mean path? Its options are: path."));
        let mut o = Options::new("stream \"s\"", [("pth".to_owned(), "x".to_owned())].into());
        let e = o.required(&PATH).expect_err("pth is not path");
        assert_eq!(e.hint(), Some("Write path instead of \"pth\"."));
    }

    #[test]
    fn a_group_has_its_own_names() {
        let values = [("fields.a.min", "x"), ("fields.b.min", "1"), ("fields.b.mx", "2"), ("rows", "5")];
        let mut all = Options::new("stream \"s\"", values.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let mut a = all.group("fields.a.", "fields.<column>.min");
        let e = a.value::<i64>(&MIN, "a whole number").expect_err("x is no number");
        assert_eq!(e.message(), "option \"fields.a.min\" of stream \"s\" is 'x', which is not a whole number");
        assert!(a.finish().is_ok());
        let mut b = all.group("fields.b.", "fields.<column>.min");
        assert_eq!(b.text(&MIN).as_deref(), Some("1"));
        assert_eq!(b.finish().expect_err("mx").message(), "stream \"s\" has no option \"fields.b.mx\"");
        assert_eq!(all.text(&ROWS).as_deref(), Some("5"));
        assert!(all.finish().is_ok());
    }

    #[test]
    fn lengths_of_time_and_sizes_are_read() {
        assert_eq!(parse_duration("500 ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5min"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("ten"), None);
    }
}
