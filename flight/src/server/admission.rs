//! Who a request is of is found out before anything of it is read: of who is not let in, no message is taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::connection::ConnectionInfo;
use super::sessions::{AUTHORIZATION, Caller};
use crate::doors::{Doors, Peer};
use crate::error::unknown_caller;

/// The call that is for who has not been let in yet.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// A service that only those reach who are let in; a request has its [`Caller`] among its extensions.
#[derive(Clone)]
pub(crate) struct Admitted<S> {
    pub(super) doors: Arc<Doors>,
    pub(super) service: S,
}

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Admitted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answer {
        let (doors, ready) = (Arc::clone(&self.doors), self.service.clone());
        let mut service = std::mem::replace(&mut self.service, ready);
        Box::pin(async move {
            // Nobody else says who it is.
            request.extensions_mut().remove::<Caller>();
            if request.uri().path() != HANDSHAKE {
                match admit(&doors, &request).await {
                    Ok(caller) => drop(request.extensions_mut().insert(caller)),
                    Err(status) => return Ok(status.into_http()),
                }
            }
            service.call(request).await
        })
    }
}

fn admit(
    doors: &Arc<Doors>,
    request: &http::Request<Body>,
) -> impl Future<Output = Result<Caller, Status>> + Send + use<> {
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().map(str::to_owned));
    let connection = request.extensions().get::<ConnectionInfo>();
    let peer = connection.map_or_else(Peer::unknown, |connection| connection.peer.clone());
    let doors = Arc::clone(doors);
    async move {
        // One that is no text is no reason to go by the certificate.
        let authorization = authorization.map(|text| text.unwrap_or_default());
        let who = doors.admit(authorization.as_deref(), &peer).await;
        let who = who.map_err(|e| unknown_caller(&e))?;
        Ok(Caller { who, token: doors.fingerprint(authorization.as_deref()) })
    }
}
