//! Session options: settings of the session, changed as `SET key = value` does.
//!
//! The messages are those of `Flight.proto`; arrow-flight has none for them.

use std::collections::{BTreeMap, HashMap};

use millstream_sql::Session;

use super::metadata::{CATALOG, DEFAULT_SCHEMA};

/// Options that every Flight SQL client knows. There is one catalog, and names without schema are in one schema,
/// so they can be set only to what they are.
const FIXED: [(&str, &str); 2] = [("catalog", CATALOG), ("schema", DEFAULT_SCHEMA)];

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(crate) value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(TextList),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TextList {
    #[prost(string, repeated, tag = "1")]
    pub(crate) values: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionError {
    #[prost(enumeration = "OptionErrorValue", tag = "1")]
    pub(crate) value: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum OptionErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseSessionResult {
    #[prost(enumeration = "CloseSessionStatus", tag = "1")]
    pub(crate) status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CloseSessionStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

/// Sets options one by one; what cannot be set is in the answer.
pub(crate) async fn set_options(session: &Session, request: SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut errors = HashMap::new();
    // In a fixed order, so that the same request always has the same effect.
    for (name, value) in request.session_options.into_iter().collect::<BTreeMap<_, _>>() {
        if let Err(error) = set_option(session, &name, value.value).await {
            errors.insert(name, OptionError { value: error as i32 });
        }
    }
    SetSessionOptionsResult { errors }
}

async fn set_option(session: &Session, name: &str, value: Option<OptionValue>) -> Result<(), OptionErrorValue> {
    if let Some((_, fixed)) = FIXED.iter().find(|(n, _)| *n == name) {
        let same = value == Some(OptionValue::Text((*fixed).to_owned()));
        return if same { Ok(()) } else { Err(OptionErrorValue::InvalidValue) };
    }
    if !session.settings().contains_key(name) {
        return Err(OptionErrorValue::InvalidName);
    }
    let literal = literal(value).ok_or(OptionErrorValue::InvalidValue)?;
    let sql = format!("SET {name} = {literal}");
    session.execute_sql(&sql).await.map(|_| ()).map_err(|e| {
        tracing::debug!(error = %e, %sql, "a session option was refused");
        OptionErrorValue::InvalidValue
    })
}

/// A value as SQL has it. Lists, and the absence of a value, have no form there.
fn literal(value: Option<OptionValue>) -> Option<String> {
    match value? {
        OptionValue::Text(text) => Some(format!("'{}'", text.replace('\'', "''"))),
        OptionValue::Bool(b) => Some(b.to_string()),
        OptionValue::Int(i) => Some(i.to_string()),
        OptionValue::Double(d) => Some(d.to_string()),
        OptionValue::List(_) => None,
    }
}

/// All options with their values.
pub(crate) fn get_options(session: &Session) -> GetSessionOptionsResult {
    let settings = session.settings().into_iter().map(|(name, (value, _))| (name, value));
    let fixed = FIXED.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all = settings.chain(fixed);
    let session_options =
        all.map(|(name, value)| (name, SessionOptionValue { value: Some(OptionValue::Text(value)) })).collect();
    GetSessionOptionsResult { session_options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn values_become_literals() {
        assert_eq!(literal(Some(OptionValue::Text("it's".into()))).unwrap(), "'it''s'");
        assert_eq!(literal(Some(OptionValue::Int(-4))).unwrap(), "-4");
        assert_eq!(literal(Some(OptionValue::Bool(true))).unwrap(), "true");
        assert_eq!(literal(Some(OptionValue::List(TextList { values: vec![] }))), None);
        assert_eq!(literal(None), None);
    }

    /// Bytes that pyarrow wrote for `{"a": 5}`: field 1 of a map entry is the key, 2 the value; int64 is fixed.
    #[test]
    fn the_encoding_is_that_of_flight() {
        let bytes = [0x0a, 0x0e, 0x0a, 0x01, b'a', 0x12, 0x09, 0x19, 5, 0, 0, 0, 0, 0, 0, 0];
        let request = SetSessionOptionsRequest::decode(&bytes[..]).unwrap();
        assert_eq!(request.session_options["a"].value, Some(OptionValue::Int(5)));
        assert_eq!(request.encode_to_vec(), bytes);
    }
}
