//! `POST /sql`: a statement, as text or as `{"sql": "…"}`. A query gives its rows, anything else a word on what was done.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use millstream_sql::Error;
use millstream_sql::session::{Done, Outcome};
use millstream_sql::statement::{Parsed, Statement};
use serde::Deserialize;
use serde_json::json;

use super::Server;
use super::answer::Answer;
use super::body::receive;
use super::parameters::Parameters;
use super::rows::respond;
use super::shape::{NAMES, Shape};

/// Bytes of a statement.
const LONGEST: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
}

/// Executes a statement.
pub(super) async fn execute(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Answer> {
    let (head, body) = request.into_parts();
    let caller = server.admit(&head).await?;
    let parameters = Parameters::read(head.uri.query(), &["format"])?;
    let shape = Shape::asked(parameters.choice("format", &NAMES)?, &head.headers)?;
    let is_json = is_json(&head.headers)?;
    let received = receive(&server, &head.headers, body).await?;
    if received.bytes() > LONGEST {
        return Err(Answer::too_large(format!("the statement is longer than {LONGEST} bytes")));
    }
    let text = tokio::task::spawn_blocking(move || received.text()).await;
    let text = text.map_err(|_| Answer::from(Error::internal("a body was not read")))??;
    let sql = match is_json {
        false => text,
        true => serde_json::from_str::<Asked>(&text).map(|asked| asked.sql).map_err(|e| {
            Answer::invalid(format!("the body is not a statement in JSON: {e}")).hint("Send {\"sql\": \"SELECT …\"}.")
        })?,
    };
    match caller.session.execute(&one(caller.session.parse(&sql)?)?).await? {
        Outcome::Done(done) => Ok(said(done)),
        rows => respond(&server, shape, rows).await,
    }
}

fn is_json(headers: &HeaderMap) -> Result<bool, Answer> {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(true),
        // curl says the last when it is told nothing.
        "" | "text/plain" | "application/sql" | "application/x-www-form-urlencoded" => Ok(false),
        other => {
            let message = format!("content type '{other}' is not supported");
            Err(Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
                .hint("Send the statement as text/plain, or {\"sql\": \"…\"} as application/json."))
        }
    }
}

/// The one statement of a text. What would have an effect on later requests only is refused: there is no session between them.
fn one(mut all: Vec<Parsed>) -> Result<Parsed, Answer> {
    let Some(first) = all.pop() else { return Err(Answer::invalid("there is no statement in the text")) };
    if !all.is_empty() {
        return Err(Answer::invalid(format!("{} statements where one is expected", all.len() + 1))
            .hint("Send them one by one."));
    }
    match &first.statement {
        Statement::Set { name, .. } if name != "memory_limit" => Err(Answer::from(
            Error::unsupported(format!("setting \"{name}\" would be forgotten with this request"))
                .with_hint("Give it as an option of the statement, or connect with the shell."),
        )),
        _ => Ok(first),
    }
}

fn said(done: Done) -> Response {
    let Done { tag, rows, notice, left_out } = done;
    let left_out = left_out.map(|left_out| left_out.to_string());
    Json(json!({ "tag": tag, "rows": rows, "notice": notice, "left_out": left_out })).into_response()
}

#[cfg(test)]
mod tests {
    use millstream_sql::statement::parse;

    use super::*;

    #[test]
    fn one_statement_that_has_an_effect() {
        let one = |text| one(parse(text).unwrap());
        assert!(one("SELECT 1").is_ok() && one("SET memory_limit = '1GB';").is_ok());
        for bad in ["", ";", "SELECT 1; SELECT 2", "SET parallelism = 3"] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }
}
