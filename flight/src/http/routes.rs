//! What is where.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post};

use super::answer::Answer;
use super::{Server, about, changes, metrics, openapi, post as take, read, sql};

/// The routes of a server.
pub(super) fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/streams/{name}", get(read::rows).post(take::rows))
        .route("/streams/{name}/changes", get(changes::follow))
        .route("/sql", post(sql::execute))
        .route("/healthz", get(about::alive))
        .route("/readyz", get(about::ready))
        .route("/metrics", get(metrics::page))
        .route("/openapi.json", get(openapi::document))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .with_state(server)
}

async fn nowhere(request: Request) -> Answer {
    let message = format!("there is nothing at {}", request.uri().path());
    Answer::new(StatusCode::NOT_FOUND, "not_found", message).hint("GET /openapi.json says what there is.")
}

async fn not_so(request: Request) -> Answer {
    let message = format!("{} cannot be done at {}", request.method(), request.uri().path());
    Answer::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", message).hint("GET /openapi.json says what can be.")
}
