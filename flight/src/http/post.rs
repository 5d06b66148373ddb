//! `POST /streams/NAME`: rows into a stored stream, all or none, answered when they are durable.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use millstream_sql::rights::{Need, Right};
use serde_json::json;

use super::Server;
use super::answer::Answer;
use super::asked::Asked;
use super::body::receive;
use super::decode::{Target, body_format, decode};
use super::once::{Taken, Verdict, key, verdict};

/// Takes rows in.
pub(super) async fn rows(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Answer> {
    let Asked { caller, name: stream, parameters, head, body } = Asked::of(&server, request, &["on_error"]).await?;
    let lenient = parameters.choice("on_error", &["refuse", "dead_letter"])? == Some("dead_letter");
    let (format, key) = (body_format(&head.headers)?, key(&head.headers)?);
    let intake = caller.session.way_into(&stream)?;
    let target = Target { stream: &stream, schema: intake.schema().clone(), format, lenient };
    let body = Arc::new(receive(&server, &head.headers, body).await?);
    let turn = match verdict(&server, &caller, &intake, key, &body, target.salt()).await? {
        Verdict::Before(taken) => return Ok(said(taken, true)),
        Verdict::Now(turn) => turn,
    };
    let decoded = decode(&server, target, &body).await?;
    drop(body);
    let taken = Taken { rows: decoded.parcel.rows(), dead: decoded.dead as u64 };
    let parcel = match &turn {
        Some(turn) => decoded.parcel.with_receipt(turn.receipt(taken)),
        None => decoded.parcel,
    };
    // The body may have taken its time, and the right may be gone.
    caller.session.ask(Need::On(Right::Write, &stream))?;
    intake.push(parcel).await?;
    // Its receipt is there: a twin waits for the commit.
    drop(turn);
    intake.settle().await.map_err(|e| unsure(e, key))?;
    Ok(said(taken, false))
}

fn said(taken: Taken, repeated: bool) -> Response {
    let Taken { rows, dead } = taken;
    Json(json!({ "rows": rows, "dead_letters": dead, "repeated": repeated })).into_response()
}

/// What to do when it is not known whether rows were committed.
fn unsure(e: millstream_sql::Error, key: Option<&str>) -> Answer {
    let answer = Answer::from(e);
    match key {
        Some(_) => {
            answer.hint("Send the same again under the same Idempotency-Key: rows that are there are not taken twice.")
        }
        None => answer,
    }
}
