//! Actions besides those on prepared statements: cancelling queries, the session and its options, and news of jobs.

use std::sync::Arc;

use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult};
use arrow_flight::{Action, FlightInfo};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_sql::rights::{Need, Right};
use millstream_sql::{Principal, Session};
use prost::Message;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Status};

use super::options;
use super::service::Service;
use super::sessions::{AUTHORIZATION, header};
use super::statement::QueryTicket;
use crate::notes::{FailedNote, to_bytes};

/// The action whose results, which do not end, are the jobs that fail.
pub(crate) const FOLLOW_FAILURES: &str = "FollowFailures";

impl Service {
    /// [`FOLLOW_FAILURES`]: a [`FailedNote`] for each job that fails from now on and whose stream may be read, until the
    /// server shuts down.
    pub(crate) fn follow_failures(
        &self,
        session: Arc<Session>,
    ) -> BoxStream<'static, Result<arrow_flight::Result, Status>> {
        let run = self.running.begin(FOLLOW_FAILURES, session.who());
        let failures = stream::unfold((self.millstream.failures(), session), |(mut failures, session)| async move {
            loop {
                match failures.recv().await {
                    Ok((stream, _)) if !session.may_read(&stream) => {}
                    Ok((stream, reason)) => {
                        let reason = session.told_of(&stream, reason);
                        let body = to_bytes(&FailedNote { stream, reason });
                        return Some((Ok(arrow_flight::Result { body }), (failures, session)));
                    }
                    // SHOW JOBS tells of those that a slow client has missed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        run.over(failures.boxed()).boxed()
    }

    /// `CancelQuery`, which `CancelFlightInfo` has replaced.
    pub(crate) fn cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        session: &Session,
    ) -> Result<ActionCancelQueryResult, Status> {
        self.cancel(&FlightInfo::decode(query.info).map_err(undecodable)?, session)?;
        // `CANCEL_RESULT_CANCELLED`; its enumeration is not exported.
        Ok(ActionCancelQueryResult { result: 1 })
    }

    /// Everybody cancels what is their own, and who may do all cancels all.
    fn cancel(&self, info: &FlightInfo, session: &Session) -> Result<(), Status> {
        let ids = QueryTicket::ids_of(info);
        let may = |who: &Principal| who.is(session.who()) || session.ask(Need::OnAll(Right::Admin)).is_ok();
        // Not `any`, which would leave the rest running.
        let cancelled = ids.iter().filter(|id| self.running.cancel(id, may)).count();
        if cancelled == 0 {
            Err(Status::not_found("the query does not run: it has ended or never began"))
        } else {
            Ok(())
        }
    }

    /// The actions that are not Flight SQL's own.
    pub(crate) async fn other_action(&self, request: Request<Action>) -> Result<Bytes, Status> {
        let (metadata, extensions, action) = request.into_parts();
        let session = self.sessions.of(&metadata, &extensions)?;
        let body = action.body.as_ref();
        let answer = match action.r#type.as_str() {
            "CancelFlightInfo" => {
                let request = arrow_flight::CancelFlightInfoRequest::decode(body).map_err(undecodable)?;
                self.cancel(&request.info.unwrap_or_default(), &session)?;
                arrow_flight::CancelFlightInfoResult::new(arrow_flight::CancelStatus::Cancelled).encode_to_vec()
            }
            "SetSessionOptions" => {
                let request = options::SetSessionOptionsRequest::decode(body).map_err(undecodable)?;
                options::set_options(&session, request).await.encode_to_vec()
            }
            "GetSessionOptions" => options::get_options(&session).encode_to_vec(),
            "CloseSession" => {
                self.sessions.close(&metadata, &extensions);
                self.doors.log_out(header(&metadata, AUTHORIZATION));
                options::CloseSessionResult { status: options::CloseSessionStatus::Closed as i32 }.encode_to_vec()
            }
            other => return Err(Status::unimplemented(format!("there is no action \"{other}\""))),
        };
        Ok(answer.into())
    }
}

fn undecodable(e: prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the request cannot be decoded: {e}"))
}
