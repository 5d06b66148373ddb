//! `Idempotency-Key`: rows that were sent again are not taken again.
//!
//! The key is one of a user and a stream. With its rows goes a receipt: how many there were, and a hash of the body, which
//! the manifest that commits the rows keeps. Who sends the same again is told the same; who sends another body under the key is
//! refused. A twin that comes meanwhile waits for the first, and tries itself if that fails.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use millstream_engine::connector::ingest::{Kept, Receipt, Reserved};
use millstream_sql::session::{Intake, Once};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::answer::Answer;
use super::body::Received;
use super::{Caller, Server};

const HEADER: &str = "idempotency-key";
/// Characters of a key.
const LONGEST: usize = 255;

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) rows: u64,
    pub(super) dead: u64,
}

/// A request under a key that has not been taken yet.
pub(super) struct Turn {
    reserved: Reserved,
    digest: String,
}

/// What is to be done with a request.
pub(super) enum Verdict {
    /// Nothing: it was taken before.
    Before(Taken),
    /// It is to be taken, with a receipt where it has a key.
    Now(Option<Turn>),
}

/// The key of a request.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&str>, Answer> {
    let mut all = headers.get_all(HEADER).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let visible = |key: &&str| (1..=LONGEST).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b));
    match first.to_str().ok().filter(visible) {
        Some(key) if all.next().is_none() => Ok(Some(key)),
        Some(_) => Err(Answer::invalid("Idempotency-Key is there twice")),
        None => Err(Answer::invalid(format!("Idempotency-Key is not a text of 1 to {LONGEST} ASCII characters"))
            .hint("Send a UUID, the same when you send the same rows again.")),
    }
}

/// Finds out whether `body` was taken under `key` before, waiting for a twin. `salt` are the other things that make it what
/// it is.
pub(super) async fn verdict(
    server: &Server,
    caller: &Caller,
    intake: &Intake,
    key: Option<&str>,
    body: &Arc<Received>,
    salt: String,
) -> Result<Verdict, Answer> {
    let Some(key) = key else { return Ok(Verdict::Now(None)) };
    let digest = {
        let (turn, body) = (server.decoding.clone().acquire_owned().await, body.clone());
        let hashed = spawn_blocking(move || {
            let _turn = turn;
            body.digest(&salt)
        });
        hashed.await.map_err(|_| Answer::from(millstream_sql::Error::internal("a body was not hashed")))??
    };
    match intake.once(&name(&caller.user, key)).await? {
        Once::Now(reserved) => Ok(Verdict::Now(Some(Turn { reserved, digest }))),
        Once::Before(receipt) => match read(&receipt) {
            Some((taken, same)) if same == digest => Ok(Verdict::Before(taken)),
            _ => {
                let message = format!("other rows were sent under Idempotency-Key '{key}' before");
                Err(Answer::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
                    .hint("Use a new key for new rows, and the same for the same rows only."))
            }
        },
    }
}

/// Under which name the receipt is kept: short, and of a user's own.
fn name(user: &str, key: &str) -> String {
    let digest = digest(&SHA256, format!("{user}\0{key}").as_bytes());
    let short: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("http/{short}")
}

impl Turn {
    /// The receipt for `taken`. The key is kept as long as this lives.
    pub(super) fn receipt(&self, taken: Taken) -> Receipt {
        self.reserved.receipt(json!([taken.rows, taken.dead, self.digest]), Kept::Hour)
    }
}

fn read(receipt: &Value) -> Option<(Taken, &str)> {
    let number = |i: usize| receipt.get(i)?.as_u64();
    Some((Taken { rows: number(0)?, dead: number(1)? }, receipt.get(2)?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let of = |keys: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for key in keys {
                headers.append(HEADER, key.parse().unwrap());
            }
            key(&headers).map(|key| key.map(str::to_owned)).map_err(|e| e.status().as_u16())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["a b"]), Ok(Some("a b".to_owned())));
        for bad in [&[""][..], &["a", "a"], &["ä"]] {
            assert_eq!(of(bad), Err(400), "{bad:?}");
        }
        assert_ne!(name("a", "b"), name("", "ab"));
        assert_ne!(name("a", "b"), name("b", "b"));
    }

    #[test]
    fn receipts() {
        assert_eq!(read(&json!([3, 1, "x"])), Some((Taken { rows: 3, dead: 1 }, "x")));
        assert_eq!(read(&json!({ "epoch": 3 })), None);
    }
}
