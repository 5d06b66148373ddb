//! What a request asks of the stream that its path names: who asks, and with which parameters.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;

use super::answer::Answer;
use super::parameters::Parameters;
use super::{Caller, Server};

/// See the module's text.
pub(super) struct Asked {
    pub(super) caller: Caller,
    /// The stream or view.
    pub(super) name: String,
    pub(super) parameters: Parameters,
    pub(super) head: Parts,
    pub(super) body: Body,
}

impl Asked {
    /// Reads `request`, whose parameters are among `known`.
    pub(super) async fn of(server: &Arc<Server>, request: Request, known: &[&str]) -> Result<Self, Answer> {
        let (mut head, body) = request.into_parts();
        let name: Result<Path<String>, PathRejection> = Path::from_request_parts(&mut head, server).await;
        let Path(name) = name?;
        let caller = server.admit(&head).await?;
        let parameters = Parameters::read(head.uri.query(), known)?;
        Ok(Asked { caller, name, parameters, head, body })
    }

    /// The rows that are wanted of it: where this holds.
    pub(super) fn condition(&self) -> Option<&str> {
        self.parameters.text("where")
    }
}
