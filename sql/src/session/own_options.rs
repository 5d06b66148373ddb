//! Options of a stream that are Millstream's own, not a connector's: what may be written, and what it comes to.

use std::time::Duration;

use millstream_engine::connector::registry::Connectors;
use millstream_engine::nearest::nearest;
use millstream_engine::options::{OptionSpec, Options, Takes};
use millstream_engine::runtime::{DeadLetterLimits, OnError};
use millstream_engine::table::Retention;

use super::outcome::ObjectKind;
use super::settings::checkpoint_interval;
use super::tables::StreamDef;
use crate::error::{Error, Result};
use crate::statement::{CreateStream, StreamForm};

const CHECKPOINT_INTERVAL: OptionSpec =
    OptionSpec::new("checkpoint_interval", Takes::Duration, "5 s", "how often a derived stream commits")
        .otherwise("the setting");
const IDLE: OptionSpec =
    OptionSpec::new("idle_timeout", Takes::Duration, "1 min", "when a split stops holding the watermark")
        .otherwise("10 s");
const PARALLELISM: OptionSpec =
    OptionSpec::new("parallelism", Takes::Whole, "4", "tasks of a derived stream's operators").otherwise("the setting");
const DEAD_LETTER_LIMIT: OptionSpec =
    OptionSpec::new("dead_letter_limit", Takes::Whole, "1000", "rows kept for the stream").otherwise("100000");
const DEAD_LETTER_RETENTION: OptionSpec =
    OptionSpec::new("dead_letter_retention", Takes::Duration, "7 days", "how long they are kept at least")
        .otherwise("30 days");
const ON_ERROR: OptionSpec =
    OptionSpec::new("on_error", Takes::Text, "fail", "rows that fail are put aside, or stop the stream")
        .otherwise("dead_letter");

const RETENTION: OptionSpec =
    OptionSpec::new("retention", Takes::Duration, "7 days", "how long a changelog keeps its history")
        .otherwise("for ever");
const RETENTION_LIMIT: OptionSpec =
    OptionSpec::new("retention_limit", Takes::Duration, "30 days", "how long it keeps what its readers still need")
        .otherwise("7 days, or the retention");
const CONTENT_RETENTION: OptionSpec = OptionSpec::new(
    "content_retention",
    Takes::Duration,
    "30 days",
    "how long a stream that only grows keeps its rows",
)
.otherwise("for ever");
const CHANGES: OptionSpec = OptionSpec::new(
    "changes",
    Takes::Flag,
    "true",
    "whether rows of a stored stream without a key change by DELETE and UPDATE",
)
.or("false");
/// How long history that readers still need is kept at least, where nothing is said.
const USUAL_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const OWN: [OptionSpec; 6] = [CHECKPOINT_INTERVAL, IDLE, PARALLELISM, RETENTION, CONTENT_RETENTION, RETENTION_LIMIT];
/// Those of streams with a query.
const OF_QUERIES: [OptionSpec; 3] = [DEAD_LETTER_LIMIT, DEAD_LETTER_RETENTION, ON_ERROR];

/// Options that are Millstream's own, not a connector's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnOptions {
    pub(super) parallelism: Option<usize>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) checkpoint_interval: Option<Duration>,
    pub(super) on_error: OnError,
    pub(super) dead_letters: DeadLetterLimits,
    pub(super) keeps: Keeps,
    /// Whether rows of a stored stream may be taken back.
    pub(super) changes: bool,
}

/// How long a stream keeps history and content.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Keeps {
    history: Option<Retention>,
    content: Option<Retention>,
}

impl OwnOptions {
    /// Parts our own options from the connector's.
    pub(super) fn of(create: &CreateStream, connectors: &Connectors) -> Result<(Self, Option<(String, Options)>)> {
        let owner = format!("stream \"{}\"", create.name.name);
        let mut values = create.options.clone();
        let connector = values.remove("connector");
        let own = own_names(create).filter_map(|name| values.remove_entry(name)).collect();
        let mut own = Options::new(owner.clone(), own);
        let usual = DeadLetterLimits::default();
        let dead_letters = DeadLetterLimits {
            rows: own.value(&DEAD_LETTER_LIMIT, "a number of rows")?.unwrap_or(usual.rows),
            retention: own.duration(&DEAD_LETTER_RETENTION)?.unwrap_or(usual.retention),
        };
        let on_error = match own.text(&ON_ERROR).as_deref() {
            None | Some("dead_letter") => OnError::DeadLetter,
            Some("fail") => OnError::Fail,
            Some(other) => {
                let message = format!("option \"on_error\" of {owner} is '{other}'");
                return Err(Error::invalid(message).with_hint("Write on_error = 'dead_letter' or 'fail'."));
            }
        };
        let interval = own.text(&CHECKPOINT_INTERVAL).map(|text| checkpoint_interval(&text)).transpose();
        let result = OwnOptions {
            on_error,
            dead_letters,
            parallelism: own.value(&PARALLELISM, "a number from 1 to 256")?,
            idle_timeout: own.duration(&IDLE)?,
            keeps: keeps(&mut own, &owner)?,
            changes: changes(&mut own, &owner, create.primary_key.is_some())?,
            checkpoint_interval: interval
                .map_err(|e| e.context(format!("option \"checkpoint_interval\" of {owner}")))?,
        };
        if result.parallelism.is_some_and(|n: usize| n == 0 || n > 256) {
            return Err(Error::invalid(format!("option \"parallelism\" of {owner} is not a number from 1 to 256")));
        }
        match (connector, values.keys().next()) {
            (Some(name), _) => Ok((result, Some((name, Options::new(owner, values))))),
            (None, None) => Ok((result, None)),
            (None, Some(left)) => Err(without_connector(create, left, connectors)),
        }
    }
}

fn changes(own: &mut Options, owner: &str, has_key: bool) -> Result<bool> {
    match own.is_set(&CHANGES) {
        false => Ok(has_key),
        true if own.flag(&CHANGES)? => Ok(true),
        true if has_key => Err(Error::invalid(format!(
            "{owner} has a PRIMARY KEY, by which rows replace each other, and changes = false"
        ))
        .with_hint("Leave one of them out.")),
        true => Ok(false),
    }
}

fn keeps(own: &mut Options, owner: &str) -> Result<Keeps> {
    let (history, content) = (own.duration(&RETENTION)?, own.duration(&CONTENT_RETENTION)?);
    let limit = own.duration(&RETENTION_LIMIT)?;
    if limit.is_some() && history.is_none() && content.is_none() {
        return Err(Error::invalid(format!("{owner} has option \"retention_limit\" and no \"retention\"")).with_hint(
            "Say how long history is kept, as in retention = '1 day', or leave both out to keep all of it.",
        ));
    }
    let up_to = |spec: &OptionSpec, kept: Duration| match limit.unwrap_or(USUAL_LIMIT.max(kept)) {
        limit if limit < kept => {
            let message = format!("option \"retention_limit\" of {owner} is less than its \"{}\"", spec.name);
            let hint = "It is how long rows are kept for readers that are behind: make it as long or longer.";
            Err(Error::invalid(message).with_hint(hint))
        }
        limit => Ok(limit),
    };
    let history = match history {
        Some(kept) => Some(Retention::new(kept, up_to(&RETENTION, kept)?)),
        None => None,
    };
    let content = match content {
        Some(kept) => Some(Retention::of_content(kept, up_to(&CONTENT_RETENTION, kept)?)),
        None => None,
    };
    Ok(Keeps { history, content })
}

impl Keeps {
    /// What counts for `def`.
    ///
    /// Errors where one is given that does not apply to such a stream.
    pub(super) fn of(self, def: &StreamDef) -> Result<Option<Retention>> {
        let refuse = |why: &str, hint: &str| {
            Err(Error::unsupported(format!("stream \"{}\" {why}", def.name)).with_hint(hint.to_owned()))
        };
        match (def.kind, def.changelog) {
            (ObjectKind::Stored | ObjectKind::Derived, true) if self.content.is_some() => refuse(
                "changes: what it holds is what its query or its keys say",
                "Write retention to keep less of its history, and a condition on time in the query to keep less in it.",
            ),
            (ObjectKind::Stored | ObjectKind::Derived, false) if self.history.is_some() => refuse(
                "only grows: its history is what it holds",
                "Write content_retention to let rows go that are older; retention is for streams with a PRIMARY KEY or \
                 changes = true, and for queries whose results change.",
            ),
            (ObjectKind::Stored | ObjectKind::Derived, changelog) => {
                Ok(if changelog { self.history } else { self.content })
            }
            _ if self == Keeps::default() => Ok(None),
            _ => refuse("keeps no rows", "Leave retention out: it is for streams that keep their rows."),
        }
    }
}

/// The options of `create` that are not a connector's.
fn own_names(create: &CreateStream) -> impl Iterator<Item = &'static str> {
    let of_query = OF_QUERIES.into_iter().filter(|_| create.query.is_some());
    let of_stored = [CHANGES].into_iter().filter(|_| create.form() == StreamForm::Stored);
    OWN.into_iter().chain(of_query).chain(of_stored).map(|spec| spec.name)
}

/// Options that a stream without a connector does not have.
fn without_connector(create: &CreateStream, option: &str, connectors: &Connectors) -> Error {
    let message = format!("stream \"{}\" has option \"{option}\" and no connector", create.name.name);
    let hint = match nearest(option, own_names(create).chain(["connector"])) {
        Some(near) => format!("Did you mean {near}?"),
        None => {
            let connectors = if create.query.is_some() { connectors.writable() } else { connectors.readable() };
            format!(
                "Add connector = '…', one of {}. Without one its options are: {}.",
                connectors.join(", "),
                own_names(create).collect::<Vec<_>>().join(", ")
            )
        }
    };
    Error::invalid(message).with_hint(hint)
}
