//! Starts a job where its last manifest left it.

use super::commit::tell_committed;
use super::config::{JobConfig, Runtime};
use super::fingerprint;
use super::launch::Launch;
use super::status::JobHandle;
use crate::checkpoint::{Checkpoints, Manifest};
use crate::error::{Error, Result};
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
        if let Some(claim) = &claim {
            claim.sweep(&manifest).await?;
            claim.check(&manifest).await?;
        }
        for (place, (_, sink)) in graph.sinks().enumerate() {
            if let Some(claim) = &claim {
                sink.sink.keep_in(claim.sink_place(place));
            }
        }
        self.restore_sinks(&graph, &manifest).await?;
        for (i, source) in graph.sources().enumerate() {
            source.source.draw_on(&self.budget);
            if let Some(checkpoints) = &checkpoints {
                source.source.keep_in(&checkpoints.source_folder(i));
            }
            source.source.read_by(&config.name, i, checkpoints.is_some());
            if let Some(state) = manifest.source_states.get(&i) {
                source.source.restore(state)?;
            }
            source.source.start(&manifest.sources[i].offsets()).await?;
        }
        if !manifest.is_new() {
            // A crash may have come between the manifest and the word on it.
            let sources = graph.sources().map(|s| s.source.clone()).collect::<Vec<_>>();
            tell_committed(&config.name, &sources, &manifest).await;
        }
        Launch::new(self, graph, config, claim, manifest).launch().await
    }

    async fn restore_sinks(&self, graph: &Graph, manifest: &Manifest) -> Result<()> {
        for (place, (_, sink)) in graph.sinks().enumerate() {
            if let Some(state) = manifest.sinks.get(&place) {
                sink.sink.restore(state)?;
            }
            let staged = manifest.staged.get(&place).map_or(&[][..], |s| s);
            sink.sink.start(staged, manifest.generation).await?;
        }
        Ok(())
    }
}
