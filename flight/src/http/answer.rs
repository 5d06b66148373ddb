//! What a request gets that cannot be done: a status, and in JSON the kind of error, the message and the hint.
//!
//! ```json
//! {"kind": "invalid", "message": "column \"pric\" does not exist", "hint": "Did you mean price?", "line": 1, "column": 8}
//! ```

use axum::extract::rejection::PathRejection;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use millstream_sql::{Error, ErrorKind};
use serde_json::{Map, Value, json};

/// An error as a response.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    content: Map<String, Value>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        let mut content = Map::new();
        content.insert("kind".to_owned(), kind.into());
        content.insert("message".to_owned(), message.into().into());
        Answer { status, content }
    }

    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// The body is larger than is taken.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "exhausted", message)
            .hint("Send the rows in several requests: each is committed whole.")
    }

    /// Whoever asks must say who it is.
    pub(super) fn unknown(e: Error) -> Self {
        let denied = e.kind() == ErrorKind::Denied;
        let answer = Answer::from(e);
        if denied { Answer { status: StatusCode::UNAUTHORIZED, ..answer } } else { answer }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        let hint: String = hint.into();
        self.with("hint", hint.into())
    }

    /// With a further member.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.content.insert(name.to_owned(), value);
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Error> for Answer {
    fn from(e: Error) -> Self {
        let (status, kind) = match e.kind() {
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::Data => (StatusCode::BAD_REQUEST, "data"),
            ErrorKind::Unsupported => (StatusCode::UNPROCESSABLE_ENTITY, "unsupported"),
            ErrorKind::Denied => (StatusCode::FORBIDDEN, "denied"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Exists => (StatusCode::CONFLICT, "exists"),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ErrorKind::Fenced => (StatusCode::SERVICE_UNAVAILABLE, "fenced"),
            ErrorKind::Exhausted => (StatusCode::SERVICE_UNAVAILABLE, "exhausted"),
            ErrorKind::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "cancelled"),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let mut answer = Answer::new(status, kind, e.message());
        if let Some(hint) = e.hint() {
            answer = answer.hint(hint);
        }
        if let Some(at) = e.position() {
            answer = answer.with("line", at.line.into()).with("column", at.column.into());
        }
        answer
    }
}

impl From<millstream_engine::Error> for Answer {
    fn from(e: millstream_engine::Error) -> Self {
        Error::from(e).into()
    }
}

impl From<PathRejection> for Answer {
    fn from(e: PathRejection) -> Self {
        Answer::invalid(format!("the path cannot be read: {}", e.body_text()))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), error = %json!(self.content["message"]), "a request failed");
        }
        let (again, unknown) =
            (self.status == StatusCode::SERVICE_UNAVAILABLE, self.status == StatusCode::UNAUTHORIZED);
        let mut response = (self.status, Json(Value::Object(self.content))).into_response();
        if again {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if unknown {
            let asked = HeaderValue::from_static("Basic realm=\"millstream\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, asked);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_sql::Position;

    #[test]
    fn an_error_keeps_its_words() {
        let e = Error::not_found("column \"pric\" does not exist").with_hint("Did you mean price?");
        let answer = Answer::from(e.at(Position { line: 1, column: 8 }));
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        let expected = json!({
            "kind": "not_found", "message": "column \"pric\" does not exist", "hint": "Did you mean price?", "line": 1,
            "column": 8,
        });
        assert_eq!(Value::Object(answer.content), expected);
        let response = Answer::from(Error::new(ErrorKind::Unavailable, "not now")).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
