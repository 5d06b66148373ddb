//! Headers that options ask for. Their values may be secrets.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use millstream_engine::error::{Error, Result};
use millstream_engine::options::{OptionSpec, Options};

/// Those of option `headers`, one a line, and the one that `authorization` is.
pub(crate) fn take_headers(o: &mut Options, headers: &OptionSpec, authorization: &OptionSpec) -> Result<HeaderMap> {
    let text = o.text(headers).unwrap_or_default();
    let mut all = HeaderMap::new();
    for (i, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let parts = line.split_once(':');
        let read = parts.and_then(|(name, value)| {
            Some((name.trim().parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
        });
        let Some((name, mut value)) = read else {
            // Of a line of which one cannot tell what is a value nothing is shown.
            let (name, owner) = (headers.name, o.owner());
            return Err(Error::invalid(format!("line {} of option \"{name}\" of {owner} is no header", i + 1))
                .with_hint(format!("Write one a line, like '{}'.", headers.example)));
        };
        value.set_sensitive(true);
        all.append(name, value);
    }
    if let Some(text) = o.text(authorization) {
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            Error::invalid(format!("option \"{}\" of {} is no value of a header", authorization.name, o.owner()))
        })?;
        value.set_sensitive(true);
        all.insert(AUTHORIZATION, value);
    }
    Ok(all)
}
