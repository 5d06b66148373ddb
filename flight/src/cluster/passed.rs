//! Bodies of requests and answers that a node passes on, a piece at a time: what is not taken at one end is not asked for at the other.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::HeaderMap;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::upstream::Upstream;

/// The body of a request: one that breaks off is not passed on as if it were whole.
pub(super) struct Coming<B> {
    pub(super) body: B,
    pub(super) over: bool,
}

impl<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin> Body for Coming<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let broken = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            None if self.body.is_end_stream() => return Poll::Ready(None),
            None => Status::aborted("the client has ended the call before all of it had come"),
            Some(Err(e)) => Status::aborted(e.to_string()),
        };
        self.over = true;
        Poll::Ready(Some(Err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. It ends with an error once the one that gives it leads no more, or this node ends.
pub(super) struct Going {
    pub(super) body: tonic::body::Body,
    /// Completes when it must end, and with what.
    pub(super) ends: BoxFuture<'static, Status>,
    /// What to say where the connection breaks off.
    pub(super) lost: Status,
    /// Whether errors are told behind the body, as gRPC does.
    pub(super) is_grpc: bool,
    pub(super) upstream: Upstream,
    pub(super) over: bool,
}

impl Body for Going {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let end = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(_))) => {
                self.upstream.forget();
                self.lost.clone()
            }
            Poll::Ready(frame) => return Poll::Ready(frame),
            Poll::Pending => ready!(self.ends.as_mut().poll(cx)),
        };
        self.over = true;
        if !self.is_grpc {
            return Poll::Ready(Some(Err(end)));
        }
        let mut trailers = HeaderMap::new();
        // What does not fit into a header is left out of it.
        Poll::Ready(Some(end.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn coming<B>(body: B) -> Coming<B> {
        Coming { body, over: false }
    }

    fn answer(body: tonic::body::Body, ends: BoxFuture<'static, Status>, is_grpc: bool) -> Going {
        let lost = Status::unavailable("it has gone");
        Going { body, ends, lost, is_grpc, upstream: Upstream::default(), over: false }
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_taken_for_whole() {
        let whole = coming(Full::new(Bytes::from_static(b"all"))).collect().await.expect("is whole");
        assert_eq!(whole.to_bytes(), "all");
        // A stream that has just ended has not said that it was whole.
        let part = futures::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"a part")))]);
        let mut part = coming(StreamBody::new(part));
        assert!(part.frame().await.expect("a frame").expect("a part").is_data());
        assert_eq!(part.frame().await.expect("a frame").expect_err("broke off").code(), tonic::Code::Aborted);
        assert!(part.frame().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_is_told_that_the_other_has_gone() {
        let never =
            || tonic::body::Body::new(StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>()));
        let ended = || std::future::ready(Status::unavailable("it leads no more")).boxed();
        let mut grpc = answer(never(), ended(), true);
        let trailers = grpc.frame().await.expect("a frame").expect("no error").into_trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "14");
        assert!(grpc.frame().await.is_none());
        let mut http = answer(never(), ended(), false);
        assert!(http.frame().await.expect("a frame").expect_err("breaks off").message().contains("leads no more"));
        let broken = futures::stream::iter([Err::<Frame<Bytes>, _>(Status::unknown("reset"))]);
        let mut broken = answer(tonic::body::Body::new(StreamBody::new(broken)), std::future::pending().boxed(), true);
        let trailers = broken.frame().await.expect("a frame").expect("no error").into_trailers().expect("trailers");
        assert_eq!(trailers["grpc-message"], "it%20has%20gone");
    }
}
