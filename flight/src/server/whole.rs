//! Requests that break off are not taken for whole, and what has come of a message counts in the memory budget.
//!
//! A client that cancels a call, or is gone, resets its stream. The layers below tell that like the end of a request whose
//! last message has come, and half an ingest would be committed. Here the two are told apart: by the mark with which a
//! request that is whole ends.
//!
//! Messages are large: a batch of an ingest is one. The layers below hold one until all of it is there, and know of no budget.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use millstream_engine::memory::{MemoryAccount, MemoryBudget};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::error::to_status;

/// What stands before a message.
const PREFIX: usize = 5;

/// A service whose requests end with an error where they break off, or where there is no memory for what comes.
#[derive(Clone)]
pub(crate) struct WholeRequests<S> {
    pub(super) service: S,
    pub(super) budget: Arc<MemoryBudget>,
}

impl<S: NamedService> NamedService for WholeRequests<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for WholeRequests<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let coming = Coming::new(self.budget.account("a message that a client sends"));
        self.service.call(request.map(|body| Body::new(WholeBody { body, coming, over: false })))
    }
}

struct WholeBody {
    body: Body,
    coming: Coming,
    over: bool,
}

/// The message that comes. Each has a prefix in gRPC: whether it is compressed, and its length in four bytes.
struct Coming {
    prefix: Vec<u8>,
    /// What is still to come of it.
    left: usize,
    bytes: usize,
    held: MemoryAccount,
}

impl Coming {
    fn new(held: MemoryAccount) -> Self {
        Coming { prefix: Vec::with_capacity(PREFIX), left: 0, bytes: 0, held }
    }

    /// Counts `piece`. A message that is whole is not held here any more.
    fn count(&mut self, mut piece: &[u8]) -> Result<(), Status> {
        while !piece.is_empty() {
            if self.left == 0 {
                let some = piece.len().min(PREFIX - self.prefix.len());
                self.prefix.extend_from_slice(&piece[..some]);
                piece = &piece[some..];
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    (self.left, self.bytes) = (u32::from_be_bytes(length) as usize, 0);
                    self.prefix.clear();
                }
            } else {
                let some = piece.len().min(self.left);
                (self.left, self.bytes) = (self.left - some, self.bytes + some);
                piece = &piece[some..];
            }
        }
        let bytes = if self.left == 0 { 0 } else { self.bytes };
        self.held.resize_large(bytes).map_err(|e| to_status(&e.into(), None))
    }
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
            Some(Ok(frame)) => match self.coming.count(frame.data_ref().map_or(&[], |data| data)) {
                Ok(()) => return Poll::Ready(Some(Ok(frame))),
                Err(e) => e,
            },
            Some(Err(e)) => e,
        };
        self.over = true;
        Poll::Ready(Some(Err(ended)))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    #[test]
    fn what_has_come_of_a_message_is_held() {
        let budget = MemoryBudget::new(100 << 20);
        let all = [message(3 << 20), message(0), message(5 << 20)].concat();
        for step in [1 << 16, 4095, 3 << 20, all.len()] {
            let mut coming = Coming::new(budget.account("a message"));
            let mut most = 0;
            for piece in all.chunks(step) {
                coming.count(piece).unwrap();
                most = most.max(budget.used());
            }
            assert_eq!((budget.used(), coming.left, coming.prefix.len()), (0, 0, 0), "{step}");
            assert!(step == all.len() || most > 2 << 20, "{step}: {most}");
        }
        let mut coming = Coming::new(budget.account("a message"));
        coming.count(&message(200 << 20)[..90 << 20]).unwrap();
        assert_eq!(coming.count(&vec![0; 20 << 20]).unwrap_err().code(), Code::ResourceExhausted);
        drop(coming);
        assert_eq!(budget.used(), 0);
    }
}
