//! Connections: how many there are, how long they may be silent, and how they end.
//!
//! A connection ends when nothing happens on it for a while: no request, or a client that does not take what it asked for. A
//! request that waits for the engine may wait as long as that takes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::HttpOptions;
use crate::doors::{Acceptor, Connection, Peer};

/// How long requests that are under way may take once the server is to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long one that is turned away may take to hear it, and how many do at once.
const TURNED_AWAY: Duration = Duration::from_secs(1);
const MOST_TURNED_AWAY: usize = 64;
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 64;
/// How long a silent HTTP/2 connection is trusted.
const KEEPALIVE: Duration = Duration::from_secs(20);

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 114\r\n\r\n\
    {\"kind\":\"unavailable\",\"message\":\"there are too many connections\",\"hint\":\"Close some, or try again in a moment.\"}\r\n";

/// Serves connections of `acceptor` until `stopped` turns true and they have ended.
pub(super) async fn accept<I: Clone + Send + Sync + 'static>(
    mut acceptor: Acceptor,
    router: Router,
    options: HttpOptions,
    mut stopped: watch::Receiver<bool>,
    info: fn(&Peer) -> I,
) {
    let (places, until) = (Arc::new(Semaphore::new(options.connections)), stopped.clone());
    let (mut open, mut away) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            // An error means that the sender is gone with the server: the same as stopped.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(_) = open.join_next() => {}
            Some(_) = away.join_next() => {}
            stream = acceptor.accept() => match places.clone().try_acquire_owned() {
                Ok(place) => {
                    let info = info(&stream.peer);
                    let serving = serve(stream, info, router.clone(), options.clone(), until.clone());
                    open.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(_) if away.len() < MOST_TURNED_AWAY => drop(away.spawn(turn_away(stream))),
                Err(_) => {}
            },
        }
    }
    drop(acceptor);
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("requests still running {}s after shutdown was asked for are dropped", GRACE.as_secs());
    }
}

/// Tells a client that there is no room.
async fn turn_away(mut stream: Connection) {
    let tell = async {
        stream.write_all(FULL.as_bytes()).await?;
        stream.shutdown().await?;
        // Closed with something unread, the answer might be lost.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // One that does not listen is not told.
    let _ = tokio::time::timeout(TURNED_AWAY, tell).await;
}

/// Serves one connection to its end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static, I: Clone + Send + Sync + 'static>(
    stream: S,
    info: I,
    router: Router,
    options: HttpOptions,
    mut stopped: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::new());
    let service = {
        let activity = activity.clone();
        service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (router, info, request) = (router.clone(), info.clone(), UnderWay::of(&activity, request));
            async move {
                let (mut request, under_way) = request;
                request.extensions_mut().insert(info);
                let response = router.oneshot(request.map(Body::new)).await?;
                Ok::<_, Infallible>(response.map(|body| Sent { body, under_way }))
            }
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.head_time).max_buf_size(options.head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(options.head_bytes as u32)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        let wait = activity.ends_in(&options);
        if wait.is_zero() {
            return;
        }
        tokio::select! {
            ended = &mut connection => {
                if let Err(e) = ended {
                    tracing::debug!(error = %e, "a connection broke off");
                }
                return;
            }
            _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What happens on a connection.
struct Activity(Mutex<Now>);

struct Now {
    requests: usize,
    /// Whether the client is waited for, to take what is sent.
    unread: bool,
    since: Instant,
}

impl Activity {
    fn new() -> Self {
        Activity(Mutex::new(Now { requests: 0, unread: false, since: Instant::now() }))
    }

    fn note(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.0.lock();
        change(&mut now);
        now.since = Instant::now();
    }

    /// How long until nothing has happened for too long.
    fn ends_in(&self, options: &HttpOptions) -> Duration {
        let now = self.0.lock();
        let most = match (now.requests, now.unread) {
            (0, _) => options.idle,
            (_, true) => options.unread,
            // The engine is at work.
            (_, false) => return options.idle,
        };
        most.saturating_sub(now.since.elapsed())
    }
}

/// A request, until all of its response is sent.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn of<T>(activity: &Arc<Activity>, request: T) -> (T, UnderWay) {
        activity.note(|now| (now.requests, now.unread) = (now.requests + 1, false));
        (request, UnderWay(activity.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.note(|now| now.requests -= 1);
    }
}

/// A response of which it is known how the client takes it.
struct Sent {
    body: Body,
    under_way: UnderWay,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // Until the next is asked for, the client has to take this one.
        self.under_way.0.note(|now| now.unread = frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_to_those_turned_away_is_whole() {
        let (head, body) = FULL.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["kind"], "unavailable");
    }

    #[test]
    fn only_a_client_that_is_waited_for_is_given_up() {
        let options = HttpOptions { idle: Duration::ZERO, unread: Duration::ZERO, ..HttpOptions::default() };
        let patient = HttpOptions::default();
        let activity = Arc::new(Activity::new());
        assert!(activity.ends_in(&options).is_zero() && !activity.ends_in(&patient).is_zero());
        let (_, under_way) = UnderWay::of(&activity, ());
        let options = HttpOptions { idle: Duration::from_secs(1), ..options };
        assert!(!activity.ends_in(&options).is_zero(), "the engine is at work");
        activity.note(|now| now.unread = true);
        assert!(activity.ends_in(&options).is_zero(), "the client does not read");
        drop(under_way);
        assert!(!activity.ends_in(&options).is_zero());
    }
}
