//! `EXPLAIN` and `EXPLAIN ANALYZE STREAM`.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::graph::{Exchange, Graph, Node, NodeKind};
use millstream_engine::memory::human_bytes;
use millstream_engine::metrics::NodeFigures;
use millstream_engine::operator::StateBound;
use millstream_engine::runtime::{JobHandle, labels};

use super::dataflow::{Planned, emit_text};
use super::jobs::public;
use super::outcome::{JobLag, JobState};
use super::reading::Reading;
use super::{Outcome, Session};
use crate::error::{Error, Result};
use crate::plan::{query_plan, session_state, streaming_plan};
use crate::statement::{Explain, ExplainTarget, Query, StreamForm};

impl Session {
    pub(super) async fn explain(&self, explain: &Explain) -> Result<Outcome> {
        let lines = match (&explain.target, explain.analyze) {
            (ExplainTarget::Stream(name), true) => self.figures(public(name)?)?,
            (ExplainTarget::Stream(name), false) => self.explain_stream(public(name)?)?,
            (_, true) => {
                return Err(Error::unsupported("EXPLAIN ANALYZE shows the live figures of a stream that runs")
                    .with_hint("Write EXPLAIN ANALYZE STREAM name, or EXPLAIN for the plan."));
            }
            (ExplainTarget::Query(query), false) => self.explain_query(query, None, explain.verbose)?,
            (ExplainTarget::CreateStream(create), false) => match create.form() {
                StreamForm::Derived | StreamForm::WrittenOut => {
                    let query = create.query.as_ref().ok_or_else(|| Error::internal("no query"))?;
                    self.explain_query(query, self.millstream.own_parallelism(create)?, explain.verbose)?
                }
                StreamForm::External => vec!["external stream: read when a query needs it".to_owned()],
                StreamForm::Stored => vec!["stored stream: rows arrive by INSERT and ingest".to_owned()],
            },
        };
        let schema = Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, true)]));
        let column = Arc::new(StringArray::from_iter_values(lines));
        Ok(Outcome::table(RecordBatch::try_new(schema, vec![column])?))
    }

    fn explain_stream(&self, name: &str) -> Result<Vec<String>> {
        let def = self.millstream.stream(name)?;
        match super::entry::statement_of(&def.sql)? {
            crate::statement::Statement::CreateStream(create) => match &create.query {
                Some(query) => {
                    let parallelism = self.millstream.own_parallelism(&create)?.unwrap_or(self.tasks());
                    Ok(plan_lines(&self.millstream.plan_stream(&def, query, parallelism, &Reading::of_job())?, query))
                }
                None => Ok(vec![format!("stream \"{name}\" is not the result of a query")]),
            },
            _ => Err(Error::internal("a stream that no CREATE made")),
        }
    }

    fn explain_query(&self, query: &Query, parallelism: Option<usize>, verbose: bool) -> Result<Vec<String>> {
        let parallelism = parallelism.unwrap_or(self.tasks());
        let reading = self.reading().told();
        let planned = self.millstream.plan_continuous(query, parallelism, &reading)?;
        let mut lines = plan_lines(&planned, query);
        if verbose {
            let state = session_state();
            let plan = query_plan(&state, self.millstream.noting_resolver(&reading), &query.query)?;
            let plan = streaming_plan(&state, plan)?;
            lines.push(String::new());
            lines.push("logical plan:".to_owned());
            lines.extend(plan.display_indent().to_string().lines().map(|l| format!("  {l}")));
        }
        Ok(lines)
    }

    fn figures(&self, name: &str) -> Result<Vec<String>> {
        let def = self.millstream.stream(name)?;
        let job = self.millstream.job(name).ok_or_else(|| super::jobs::no_job(&def))?;
        if let Some(why) = job.broken() {
            return Err(super::jobs::failed(name, &why));
        }
        let handle = job.handle().ok_or_else(|| {
            Error::invalid(format!("stream \"{name}\" does not run in this process")).with_hint(format!(
                "RESUME STREAM {} if it is paused; SHOW JOBS says.",
                crate::statement::quote_name(name)
            ))
        })?;
        Ok(live_lines(&handle))
    }
}

/// What somebody should know whose query keeps more and more, where it does.
pub(super) fn unbounded_words(graph: &Graph) -> Option<String> {
    let names = labels(graph);
    let keeps =
        |node: &Node| matches!(&node.kind, NodeKind::Operator(spec) if spec.state_bound() == StateBound::Unbounded);
    let unbounded: Vec<&str> =
        graph.nodes.iter().zip(&names).filter(|(node, _)| keeps(node)).map(|(_, n)| n.as_str()).collect();
    if unbounded.is_empty() {
        return None;
    }
    let (verb, read) = if unbounded.len() == 1 { ("keeps", "it reads") } else { ("keep", "they read") };
    let is = |kind: &str, node: &Node| matches!(&node.kind, NodeKind::Operator(spec) if spec.name() == kind);
    let some = |kind: &str| graph.nodes.iter().any(|node| keeps(node) && is(kind, node));
    let mut ways = vec![];
    if some("join") {
        ways.push("compare event times (a.ts BETWEEN b.ts AND b.ts + INTERVAL '1 hour') or join equal windows");
    }
    if some("over") {
        ways.push(
            "partition by window_start and window_end, or take the first rows alone (QUALIFY row_number() OVER (…) <= 3)",
        );
    }
    let ways = match ways.is_empty() {
        true => "A".to_owned(),
        false => format!("To bound that {}; a", ways.join(", or ")),
    };
    Some(format!(
        "{} {verb} all rows that {read} (EXPLAIN shows which). {ways} stream with a PRIMARY KEY keeps one row a key",
        unbounded.join(", ")
    ))
}

fn plan_lines(planned: &Planned, query: &Query) -> Vec<String> {
    let lowered = &planned.lowered;
    let emit = emit_text(lowered.output.emit, query.emit, lowered.output.append_only);
    let mut lines = vec![format!("emit: {emit}")];
    lines.extend(graph_lines(&lowered.graph, |_| String::new()));
    lines
}

fn live_lines(job: &JobHandle) -> Vec<String> {
    let status = job.status();
    let figures = job.figures();
    let total = |f: fn(&NodeFigures) -> u64| figures.iter().map(f).sum::<u64>();
    let beyond = match status.beyond {
        0 => String::new(),
        n => format!(", {n} of them beyond dead_letter_limit and counted only"),
    };
    let mut lines = vec![
        format!(
            "state: {}, epoch {}, last epoch took {:.1} ms",
            JobState::from(status.phase).name(),
            status.epoch,
            status.epoch_lag.as_secs_f64() * 1e3
        ),
        format!("committed: checkpoint {}, epoch {}", status.committed.0, status.committed.1),
        format!(
            "watermark: {}{}",
            status.watermark,
            if status.holder.is_empty() { String::new() } else { format!(", {}", status.holder) }
        ),
        format!("late rows: {}, dead letters: {}{beyond}", total(|f| f.late), total(|f| f.dead_letters)),
    ];
    if let Some((_, message, _)) = &status.error {
        lines.push(format!("error: {message}"));
    }
    lines.extend(graph_lines(job.graph(), |id| {
        let f = &figures[id];
        let mut text = format!("  | in {} out {}, busy {:.3} s", f.rows_in, f.rows_out, f.busy.as_secs_f64());
        if f.queued_bytes > 0 {
            text += &format!(", queued {}", human_bytes(f.queued_bytes as usize));
        }
        if f.state_bytes > 0 {
            text += &format!(", state {}", human_bytes(f.state_bytes as usize));
        }
        if let Some(lag) = job.lag(id) {
            text += &format!(", lag {}", JobLag::from(lag));
        }
        for figure in job.counted(id) {
            text += &format!(", {} {}", figure.name, figure.value);
        }
        text
    }));
    lines
}

/// The dataflow, sinks first, inputs below and indented.
fn graph_lines(graph: &Graph, figures: impl Fn(usize) -> String) -> Vec<String> {
    let names = labels(graph);
    let mut lines = vec![];
    let read: Vec<usize> = graph.nodes.iter().flat_map(|n| n.inputs.iter().map(|e| e.from)).collect();
    for id in (0..graph.nodes.len()).rev().filter(|id| !read.contains(id)) {
        node_lines(graph, id, 0, "", &names, &figures, &mut lines);
    }
    lines
}

fn node_lines(
    graph: &Graph,
    id: usize,
    depth: usize,
    edge: &str,
    names: &[String],
    figures: &impl Fn(usize) -> String,
    lines: &mut Vec<String>,
) {
    let node = &graph.nodes[id];
    let (what, bound) = match &node.kind {
        NodeKind::Source(s) => {
            let time = match &s.time {
                Some(t) => format!(", event time {}", s.schema.field(t.column).name()),
                None => String::new(),
            };
            let columns: Vec<_> = s.schema.fields().iter().map(|f| f.name().as_str()).collect();
            (format!("{} ({}; {}{time})", s.stream, columns.join(", "), s.source.describe()), StateBound::Stateless)
        }
        NodeKind::Operator(o) => (o.describe(), o.state_bound()),
        NodeKind::Sink(s) => (s.sink.describe(), StateBound::Stateless),
    };
    let state = match bound {
        StateBound::Stateless => String::new(),
        bound => format!("  [state {bound}]"),
    };
    let what = if what.is_empty() { String::new() } else { format!(": {what}") };
    let indent = "  ".repeat(depth);
    lines.push(format!("{indent}{edge}{} x{}{what}{state}{}", names[id], node.parallelism, figures(id)));
    for input in &node.inputs {
        let edge = match &input.exchange {
            Exchange::Forward => "<- ".to_owned(),
            Exchange::Single => "<- single ".to_owned(),
            Exchange::Hash(columns) => {
                let schema = graph.schema(input.from);
                let names: Vec<_> =
                    columns.iter().map(|c| schema.field(*c).name().trim_start_matches("k:").to_owned()).collect();
                format!("<- hash({}) ", names.join(", "))
            }
        };
        node_lines(graph, input.from, depth + 1, &edge, names, figures, lines);
    }
}
