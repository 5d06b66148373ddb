//! Requests: who makes them, and how often one is tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use millstream_engine::connector::Figure;
use millstream_engine::connector::lag::Lag;
use millstream_engine::error::{Error, Result};
use millstream_engine::options::Options;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response};

use super::date::retry_after;
use crate::connector::backoff::Backoff;
use crate::connector::link::LinkState;
use crate::connector::wire::take_client;
use crate::doors::renewed::Renewed;

/// How often one is sent on within a server.
const MOST_REDIRECTS: usize = 5;
/// What is told of an answer that says no.
const TOLD: usize = 300;

/// Makes requests.
pub(super) struct Client {
    http: Arc<Renewed<reqwest::Client>>,
    headers: HeaderMap,
    longest_wait: Duration,
    pub(super) counts: Counts,
}

/// What has happened since the job started.
#[derive(Default)]
pub(super) struct Counts {
    asked: AtomicU64,
    failed: AtomicU64,
    link: LinkState,
}

/// An answer that is good.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// One that is not.
pub(super) struct Refused {
    pub(super) why: String,
    /// Whether the same may be taken later.
    pub(super) again: bool,
    after: Option<Duration>,
}

impl Client {
    /// As `options` say: TLS files, headers, how long a request may take, and how long the waits between them become.
    pub(super) fn new(
        options: &mut Options,
        tls: bool,
        headers: HeaderMap,
        timeout: Duration,
        longest_wait: Duration,
    ) -> Result<Self> {
        let http = take_client(options, tls, move |config| {
            reqwest::Client::builder()
                .use_preconfigured_tls(config)
                .redirect(within_server())
                .no_proxy()
                .timeout(timeout)
                .gzip(true)
                .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|e| Error::internal(format!("no client for HTTP: {e}")))
        })?;
        Ok(Client { http, headers, longest_wait, counts: Counts::default() })
    }

    /// The client with which a request is made.
    pub(super) async fn http(&self) -> Arc<reqwest::Client> {
        self.http.get().await
    }

    /// Waits between attempts.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.longest_wait)
    }

    /// Sends a request once; an answer of more than `most` bytes is none.
    pub(super) async fn send(&self, request: RequestBuilder, most: usize) -> Result<Answered, Refused> {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let sent = self.answer(request.headers(self.headers.clone()), most).await;
        match &sent {
            Ok(_) => self.counts.link.connected(),
            Err(refused) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.counts.link.lost(&refused.why);
            }
        }
        sent
    }

    async fn answer(&self, request: RequestBuilder, most: usize) -> Result<Answered, Refused> {
        let lost = |e: reqwest::Error| Refused { why: deepest(&e), again: true, after: None };
        let response = request.send().await.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let good = status.is_success() || status == StatusCode::NOT_MODIFIED;
        let body = read(response, if good { most } else { TOLD }, good).await.map_err(|why| Refused {
            why,
            again: true,
            after: None,
        })?;
        if good {
            return Ok(Answered { status, headers, body });
        }
        let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let again = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        let said = String::from_utf8_lossy(&body);
        let said = said.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
        Err(Refused { why: format!("it answers {}{said}", status.as_u16()), again, after })
    }

    /// Whether the last request was answered.
    pub(super) fn lag(&self) -> Lag {
        self.counts.link.lag()
    }

    /// The counts, for `EXPLAIN ANALYZE STREAM`.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            Figure::count("requests", read(&self.counts.asked)),
            Figure::count("requests_failed", read(&self.counts.failed)),
        ]
    }
}

/// Follows where an answer leads to as long as it is the same server.
fn within_server() -> Policy {
    Policy::custom(|attempt| {
        let from = attempt.previous().last().map(|url| url.origin());
        match from == Some(attempt.url().origin()) && attempt.previous().len() <= MOST_REDIRECTS {
            true => attempt.follow(),
            // Where it leads is shown as it is, and is no answer.
            false => attempt.stop(),
        }
    })
}

impl Refused {
    /// How long to wait before the next attempt: what the server says, but at least as long as is waited anyway.
    pub(super) fn wait(&self, backoff: &mut Backoff) -> Result<Duration> {
        Ok(backoff.delay()?.max(self.after.unwrap_or_default()))
    }
}

/// The body of `response`. One that is longer than `most` is cut, or an error where it is needed `whole`.
async fn read(mut response: Response, most: usize, whole: bool) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|e| deepest(&e))? {
        body.extend_from_slice(&piece);
        if body.len() > most {
            if whole {
                return Err(format!("its answer is longer than {most} bytes"));
            }
            body.truncate(most);
            break;
        }
    }
    Ok(body.freeze())
}

/// The deepest cause, as "connection refused", says more than "error sending request". It does not say the URL.
fn deepest(e: &reqwest::Error) -> String {
    if e.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.is::<reqwest::Error>() {
        true => "the request cannot be sent".to_owned(),
        false => cause.to_string(),
    }
}
