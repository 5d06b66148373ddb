//! What a record says: that a row arrives, or what has become of one.
//!
//! ```text
//! json, csv                   {"id":1,"v":"a"}                                     ->  +(1, a)
//! json, csv, changes = true   {"_op":"-D","id":1,"v":"a"}                          ->  -(1, a)
//! debezium_json               {"op":"u","before":{"id":1,…},"after":{"id":1,…}}    ->  -(1, …) +(1, …)
//! ```

use arrow::datatypes::Field;

use crate::changelog::OP;
use crate::error::{Error, Result};
use crate::options::{OptionSpec, Options, Takes};

/// Whether records say which operation they are.
pub const CHANGES: OptionSpec = OptionSpec::new(
    "changes",
    Takes::Flag,
    "true",
    "JSON, CSV: each record says in _op whether its row comes (+I, +U) or goes (-U, -D)",
)
.or("false");

/// The name of the format whose records are envelopes of Debezium.
pub const DEBEZIUM_JSON: &str = "debezium_json";

/// The key under which a column's field says what of an envelope it is, where it is not a column of the row.
const FROM: &str = "from";

/// `field` as a column of what an envelope says under `key`.
pub fn told(field: &Field, key: &str) -> Field {
    field.clone().with_metadata([(FROM.to_owned(), key.to_owned())].into())
}

/// What of an envelope the column `field` is, where it is not a column of the row.
pub(crate) fn from(field: &Field) -> Option<&str> {
    field.metadata().get(FROM).map(String::as_str)
}

/// What records say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Rows that arrive.
    #[default]
    Rows,
    /// Rows, with an operation each in `_op`.
    Ops,
    /// What Debezium says of rows.
    Debezium,
}

impl Form {
    /// Takes that of records of `format` out of the options of who reads them.
    ///
    /// Errors where that format cannot say changes, or says nothing else.
    pub fn take(options: &mut Options, format: &str) -> Result<Self> {
        let (is_set, changes) = (options.is_set(&CHANGES), options.flag(&CHANGES)?);
        let wrong = |why: &str, hint: &str| {
            let message = format!("option \"{}\" of {}: {why}", CHANGES.name, options.owner());
            Err(Error::invalid(message).with_hint(hint.to_owned()))
        };
        match format {
            DEBEZIUM_JSON if is_set => wrong("records of Debezium are changes", "Leave it out."),
            DEBEZIUM_JSON => Ok(Form::Debezium),
            "json" | "csv" => Ok(if changes { Form::Ops } else { Form::Rows }),
            _ if changes => wrong(
                "only records of JSON and CSV can say their operation",
                "Leave it out, or write format = 'json' or 'csv'.",
            ),
            _ => Ok(Form::Rows),
        }
    }

    /// That of the options of a stream whose format is that of option `format`, or `usual`. For who looks at the options
    /// only; what is wrong with them is told when they are taken.
    pub fn of(options: &Options, format: &OptionSpec, usual: &str) -> Self {
        let mut options = options.clone();
        let named = options.choice(format).ok().flatten();
        let found = options.found(format.name).map(str::to_owned);
        let format = named.map(str::to_owned).or(found).unwrap_or_else(|| usual.to_owned());
        Form::take(&mut options, &format).unwrap_or_default()
    }

    /// Whether what records say besides their rows has something called `key`.
    pub fn tells(self, key: &str) -> bool {
        let named = matches!(key, "op" | "ts_ms" | "ts_us" | "ts_ns");
        self == Form::Debezium && (named || key.strip_prefix("source.").is_some_and(|name| !name.is_empty()))
    }

    /// Whether rows can be taken back.
    pub fn is_changelog(self) -> bool {
        self != Form::Rows
    }
}

/// What is wrong with the operation `text`.
pub(crate) fn no_op(text: Option<&[u8]>) -> String {
    match text {
        None => format!("it has no {OP}: +I, -U, +U or -D"),
        Some(text) => {
            let shown = String::from_utf8_lossy(text.get(..20).unwrap_or(text));
            format!("its {OP} is \"{shown}\", not one of +I, -U, +U and -D")
        }
    }
}
