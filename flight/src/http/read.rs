//! `GET /streams/NAME`: the rows of a stream or view, where a condition holds.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;

use super::Server;
use super::answer::Answer;
use super::parameters::Parameters;
use super::rows::respond;
use super::shape::{NAMES, Shape};

/// Gives rows out.
pub(super) async fn rows(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Answer> {
    let Path(name) = name?;
    let (head, _) = request.into_parts();
    let caller = server.admit(&head).await?;
    let parameters = Parameters::read(head.uri.query(), &["where", "limit", "format"])?;
    let shape = Shape::asked(parameters.choice("format", &NAMES)?, &head.headers)?;
    let limit = parameters.number("limit")?;
    if limit.is_some_and(|limit| i64::try_from(limit).is_err()) {
        return Err(Answer::invalid("parameter \"limit\" is too large"));
    }
    let outcome = caller.session.part(&name, parameters.text("where"), limit).await?;
    respond(&server, shape, outcome).await
}
