//! Receiving what another node sends to tasks of this one.

use std::collections::HashMap;

use arrow_flight::FlightData;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::runtime::{Grants, Inlet, Landed};
use millstream_engine::{Error, ErrorKind, Result};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use super::rows::RowsIn;
use super::words::{Answer, Granted, Head, alone};

/// Grants that wait to be sent.
const WAITING: usize = 64;

/// An edge, as it comes in.
struct Coming {
    inlet: Inlet,
    rows: RowsIn,
}

/// Takes what comes over `line` for `landed`, on `cpu`; gives what is answered.
pub(super) fn land(
    mut landed: Landed,
    line: Streaming<FlightData>,
    cpu: &Handle,
) -> BoxStream<'static, Result<FlightData, Status>> {
    let (grant, granted) = mpsc::channel(WAITING);
    let edges = std::mem::take(&mut landed.edges);
    let window = edges.first().map_or(0, |(_, inlet, _)| inlet.window()) as u64;
    let (mut coming, mut granting) = (HashMap::new(), JoinSet::new());
    for (edge, inlet, grants) in edges {
        coming.insert(edge, Coming { inlet, rows: RowsIn::default() });
        granting.spawn_on(pass_on(edge, grants, grant.clone()), cpu);
    }
    cpu.spawn(async move {
        let _granting = granting;
        // The answer ends when both are gone.
        let _grant = grant;
        let mut over = landed.over();
        tokio::select! {
            taken = take(line, &mut coming) => {
                let inlets: Vec<Inlet> = coming.into_values().map(|coming| coming.inlet).collect();
                match taken {
                    Ok(()) => landed.end(&inlets).await,
                    Err(e) => landed.fail(e).await,
                }
            }
            // It is told by nobody, and closed when the run is over.
            _ = over.changed() => {}
        }
    });
    let first = stream::once(async move { Ok(alone(&Answer { window, granted: vec![] })) });
    first.chain(stream::unfold(granted, answers)).boxed()
}

/// The next answer: all that has been granted since the last one.
async fn answers(
    mut granted: mpsc::Receiver<Granted>,
) -> Option<(Result<FlightData, Status>, mpsc::Receiver<Granted>)> {
    let mut all = vec![];
    match granted.recv_many(&mut all, WAITING).await {
        0 => None,
        _ => Some((Ok(alone(&Answer { window: 0, granted: all })), granted)),
    }
}

/// Passes on how much room there is on an edge, as there is more.
async fn pass_on(edge: u32, mut grants: Grants, grant: mpsc::Sender<Granted>) {
    while let Ok(bytes) = grants.next().await {
        if grant.send(Granted { edge, bytes: bytes as u64 }).await.is_err() {
            return;
        }
    }
}

/// Takes what comes until the line ends or breaks. It never waits for who reads an edge.
async fn take(mut line: Streaming<FlightData>, coming: &mut HashMap<u32, Coming>) -> Result<()> {
    while let Ok(Some(message)) = line.message().await {
        let head = Head::decode(message.app_metadata.clone());
        let head = head.map_err(|e| Error::data(format!("a message cannot be understood: {e}")))?;
        let unknown = || Error::internal(format!("there is no edge {}", head.edge));
        let Coming { inlet, rows } = coming.get_mut(&head.edge).ok_or_else(unknown)?;
        let taken = match (head.mark, rows.read(message, head.weighted)) {
            (Some(mark), _) => inlet.mark(mark.into()),
            (None, Ok(None)) => Ok(()),
            (None, Ok(Some(changes))) => inlet.changes(changes, head.cost as usize),
            (None, Err(e)) => Err(e),
        };
        match taken {
            // The task has gone and says why; what else comes is for others.
            Err(e) if e.kind() == ErrorKind::Cancelled => {}
            taken => taken?,
        }
    }
    Ok(())
}
