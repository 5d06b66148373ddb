//! Requests that break off are not taken for whole.
//!
//! A client that cancels a call, or is gone, resets its stream. The layers below tell that like the end of a request whose
//! last message has come, and half an ingest would be committed. Here the two are told apart: by the mark with which a
//! request that is whole ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// A service whose requests end with an error where they break off.
#[derive(Clone)]
pub(super) struct WholeRequests<S>(pub(super) S);

impl<S: NamedService> NamedService for WholeRequests<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for WholeRequests<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.0.call(request.map(|body| Body::new(WholeBody { body, over: false })))
    }
}

struct WholeBody {
    body: Body,
    over: bool,
}

fn broken_off() -> Status {
    // `Cancelled` would be taken for the end again.
    Status::aborted("the client has ended the call before all of it had come")
}

impl http_body::Body for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let ended = match frame {
            None if self.body.is_end_stream() => return Poll::Ready(None),
            None => broken_off(),
            Some(Err(e)) if e.code() == Code::Cancelled => broken_off(),
            Some(frame) => return Poll::Ready(Some(frame)),
        };
        self.over = true;
        Poll::Ready(Some(Err(ended)))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}
