//! Whether the server is there, and ready.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millstream_sql::session::JobState;
use serde_json::json;

use super::Server;
use super::answer::Answer;
use super::parameters::Parameters;

/// `GET /healthz`: the process answers.
pub(crate) async fn alive(request: Request) -> Result<Response, Answer> {
    Parameters::read(request.uri().query(), &[])?;
    Ok(Json(json!({ "status": "alive" })).into_response())
}

/// `GET /readyz`: the store is open, and the server does not end.
pub(super) async fn ready(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Answer> {
    Parameters::read(request.uri().query(), &[])?;
    if *server.stopped.borrow() {
        return Err(Answer::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the server is shutting down"));
    }
    let jobs = server.millstream.jobs();
    let count = |state| jobs.iter().filter(|job| job.state == state).count();
    let (running, failed) = (count(JobState::Running), count(JobState::Failed));
    Ok(Json(json!({ "status": "ready", "running": running, "failed": failed })).into_response())
}
