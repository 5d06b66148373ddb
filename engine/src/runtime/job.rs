//! Starts a job where its last manifest left it.

use super::commit::tell_committed;
use super::config::{JobConfig, Runtime};
use super::fingerprint;
use super::launch::Launch;
use super::status::JobHandle;
use crate::checkpoint::{Checkpoints, Manifest};
use crate::connector::{Opened, Opening, ReadBy, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;

impl Runtime {
    /// Starts `graph`, from its last checkpoint where it has any. Without `checkpoints` it keeps nothing.
    pub async fn start(&self, graph: Graph, config: JobConfig, checkpoints: Option<Checkpoints>) -> Result<JobHandle> {
        graph.validate()?;
        let sources = graph.sources().count();
        let (claim, mut manifest) = match &checkpoints {
            None => (None, Manifest::start(sources)),
            Some(checkpoints) => {
                let (claim, manifest) = checkpoints.claim(sources).await?;
                (Some(claim), manifest)
            }
        };
        if manifest.sources.len() != sources {
            return Err(Error::data(format!("the checkpoint of stream \"{}\" has other sources", config.name)));
        }
        fingerprint::settle(&graph, &mut manifest, &config.name)?;
        if manifest.end && !manifest.fingerprints.is_empty() {
            // Whoever had it meanwhile has finished it, and its states are gone.
            let message =
                format!("the result of stream \"{}\" has been completed by another owner of the store", config.name);
            return Err(
                Error::new(ErrorKind::Fenced, message).with_hint("Open the store again: the result can be read.")
            );
        }
        if let Some(claim) = &claim {
            claim.sweep(&manifest).await?;
            claim.check(&manifest).await?;
        }
        for (place, (_, sink)) in graph.sinks().enumerate() {
            let start = Start {
                committed: manifest.staged.get(&place).map_or(&[][..], |staged| staged),
                generation: manifest.generation,
                state: manifest.sinks.get(&place),
                place: claim.as_ref().map(|claim| claim.sink_place(place)),
            };
            sink.sink.start(start).await?;
        }
        let mut opened = vec![];
        for (place, source) in graph.sources().enumerate() {
            let (stream, durable) = (config.name.clone(), checkpoints.is_some());
            let opening = Opening {
                reader: Some(ReadBy { stream, place, durable }),
                budget: self.budget.clone(),
                folder: checkpoints.as_ref().map(|c| c.source_folder(place)),
                consumed: manifest.sources[place].offsets(),
                state: manifest.source_states.get(&place).cloned(),
                conditions: source.conditions.clone(),
            };
            opened.push(Opened::of(&source.source, opening).await?);
        }
        if !manifest.is_new() {
            // A crash may have come between the manifest and the word on it.
            let intakes = opened.iter().map(|source| source.intake.clone()).collect::<Vec<_>>();
            tell_committed(&config.name, &intakes, &manifest).await;
        }
        Launch::new(self, graph, config, claim, manifest, opened).launch().await
    }
}
