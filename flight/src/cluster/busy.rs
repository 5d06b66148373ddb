//! How many answers to clients are under way at a node.

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use tokio::sync::watch;

/// See the module's text.
#[derive(Clone)]
pub(super) struct Busy(watch::Sender<usize>);

/// One answer, until this is dropped.
pub(super) struct Answering(watch::Sender<usize>);

impl Default for Busy {
    fn default() -> Self {
        Busy(watch::Sender::new(0))
    }
}

impl Busy {
    /// One begins.
    pub(super) fn begin(&self) -> Answering {
        self.0.send_modify(|answers| *answers += 1);
        Answering(self.0.clone())
    }

    /// Completes when there is none.
    pub(super) async fn idle(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|answers| *answers == 0).await;
    }
}

impl Answering {
    /// It is over when all of `response` has been sent.
    pub(super) fn with(self, response: Response) -> Response {
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &self;
                frame
            }))
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.send_modify(|answers| *answers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_over_when_it_has_been_sent() {
        let busy = Busy::default();
        busy.idle().await;
        let answer = busy.begin().with(Response::new(Body::from("some words")));
        assert!(busy.idle().now_or_never().is_none());
        let sent = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(sent, "some words");
        busy.idle().await;
    }
}
