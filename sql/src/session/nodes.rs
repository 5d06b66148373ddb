//! `SHOW NODES` and `DRAIN NODE`: the nodes that serve the store, of which this process is the one that leads.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, BooleanArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, TimeUnit};
use millstream_engine::nodes::{LiveNode, Nodes};

use super::outcome::Outcome;
use super::show::{strings, table, text};
use super::{Millstream, Session};
use crate::error::{Error, ErrorKind, Result};

/// How long is waited for a node that is to leave.
const LEAVES: Duration = Duration::from_secs(60);

impl Millstream {
    /// How many tasks run here.
    pub fn tasks(&self) -> usize {
        self.jobs.read().values().map(|job| job.tasks()).sum()
    }

    fn nodes(&self) -> Result<&Arc<Nodes>> {
        self.config().nodes.as_ref().ok_or_else(|| {
            Error::unsupported("this process is no node: it has the store to itself")
                .with_hint("Processes that serve one store are nodes: millstream serve --store DIR|URL.")
        })
    }

    /// The nodes as they are now: of itself the one that leads knows best.
    fn live_nodes(&self) -> Result<Vec<LiveNode>> {
        let mut live = self.nodes()?.live();
        for node in live.iter_mut().filter(|node| node.leads) {
            node.node.tasks = self.tasks();
            node.node.memory = self.budget().used() as u64;
            node.node.memory_limit = self.budget().limit() as u64;
        }
        Ok(live)
    }
}

impl Session {
    pub(super) fn show_nodes(&self) -> Result<Outcome> {
        let live = self.millstream.live_nodes()?;
        let numbers =
            |of: fn(&LiveNode) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(live.iter().map(of))) };
        let number = |name: &str| Field::new(name, DataType::UInt64, false);
        let since = TimestampMicrosecondArray::from_iter_values(live.iter().map(|node| micros(node.since)));
        table(
            vec![
                text("node"),
                Field::new("leader", DataType::Boolean, false),
                number("cores"),
                number("tasks"),
                number("memory"),
                number("memory_limit"),
                Field::new("since", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
                text("version"),
                text("state"),
            ],
            vec![
                strings(live.iter().map(|node| Some(node.node.address.clone()))),
                Arc::new(BooleanArray::from_iter(live.iter().map(|node| Some(node.leads)))),
                numbers(|node| node.node.cores as u64),
                numbers(|node| node.node.tasks as u64),
                numbers(|node| node.node.memory),
                numbers(|node| node.node.memory_limit),
                Arc::new(since.with_timezone("UTC")),
                strings(live.iter().map(|node| Some(node.node.version.clone()))),
                strings(live.iter().map(|node| Some(state(node)))),
            ],
        )
    }

    /// Has a node leave, and waits until it has. The one that leads hands over when this has been answered.
    pub(super) async fn drain(&self, address: &str) -> Result<Outcome> {
        let nodes = self.millstream.nodes()?;
        if nodes.drain(address)? {
            let others: Vec<String> = nodes.live().into_iter().filter(|n| !n.leads).map(|n| n.node.address).collect();
            let next = match others.as_slice() {
                [] => "there is no other node".to_owned(),
                others => format!("one of the others leads from here on: {}", others.join(", ")),
            };
            return Ok(Outcome::notice("DRAIN NODE", format!("node \"{address}\" ends; {next}")));
        }
        tokio::time::timeout(LEAVES, nodes.gone(address)).await.map_err(|_| {
            let message = format!("node \"{address}\" has not left within {} s", LEAVES.as_secs());
            Error::new(ErrorKind::Unavailable, message)
                .with_hint("It goes on leaving: SHOW NODES says whether it is there.")
        })?;
        Ok(Outcome::tag("DRAIN NODE"))
    }
}

fn state(node: &LiveNode) -> String {
    match &node.unfit {
        _ if node.leaving => "leaving".to_owned(),
        _ if node.node.cut_off => "cut off: the store does not answer it".to_owned(),
        Some(why) => format!("unfit: {why}"),
        None => "live".to_owned(),
    }
}

fn micros(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
