//! The parameters behind `?` of a request. One that means nothing is refused, and so is one that is there twice.

use std::collections::BTreeMap;

use millstream_engine::nearest::nearest;

use super::answer::Answer;

/// Parameters by name.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads `query`, in which those called `known` may stand.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Answer> {
        let mut all = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let near = nearest(&name, known.iter().copied()).map(|near| format!("Did you mean {near}? "));
                let there = match known {
                    [] => "There are none.".to_owned(),
                    _ => format!("There are: {}.", known.join(", ")),
                };
                return Err(Answer::invalid(format!("there is no parameter \"{name}\""))
                    .hint(format!("{}{there}", near.unwrap_or_default())));
            }
            if all.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Answer::invalid(format!("parameter \"{name}\" is there twice")));
            }
        }
        Ok(Parameters(all))
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that is a number from 0 on.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Answer> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || {
            Answer::invalid(format!("parameter \"{name}\" is '{text}', which is not a whole number from 0 on"))
                .hint(format!("Write it like {name}=100."))
        };
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// A parameter that has one of the values `all`.
    pub(super) fn choice<'a>(&self, name: &str, all: &[&'a str]) -> Result<Option<&'a str>, Answer> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match all.iter().find(|value| **value == text) {
            Some(value) => Ok(Some(value)),
            None => Err(Answer::invalid(format!("parameter \"{name}\" is '{text}'"))
                .hint(format!("Write one of: {}.", all.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_single() {
        let read = |query| Parameters::read(Some(query), &["where", "limit"]);
        let all = read("where=a+%3E%201&limit=5").unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((all.text("where"), all.number("limit").unwrap()), (Some("a > 1"), Some(5)));
        for bad in ["wher=1", "limit=1&limit=2", "=1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in ["limit=", "limit=-1", "limit=1.5", "limit=99999999999999999999"] {
            assert!(read(bad).unwrap_or_else(|e| panic!("{e:?}")).number("limit").is_err(), "{bad}");
        }
        assert!(all.choice("where", &["a", "b"]).is_err());
    }
}
