//! `GET /streams/NAME`: the rows of a stream or view, where a condition holds.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::Server;
use super::answer::Answer;
use super::asked::Asked;
use super::rows::respond;
use super::shape::{NAMES, Shape};

/// Gives rows out.
pub(super) async fn rows(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Answer> {
    let asked = Asked::of(&server, request, &["where", "limit", "format"]).await?;
    let shape = Shape::asked(asked.parameters.choice("format", &NAMES)?, &asked.head.headers)?;
    let limit = asked.parameters.number("limit")?;
    if limit.is_some_and(|limit| i64::try_from(limit).is_err()) {
        return Err(Answer::invalid("parameter \"limit\" is too large"));
    }
    let outcome = asked.caller.session.part(&asked.name, asked.condition(), limit).await?;
    respond(&server, shape, outcome).await
}
