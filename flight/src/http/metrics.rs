//! `GET /metrics`: figures of the jobs, their connectors and the process in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use millstream_engine::connector::Figure;
use millstream_engine::time::EventTime;
use millstream_sql::session::{JobFigures, JobState};

use super::Server;
use super::answer::Answer;
use super::parameters::Parameters;

/// The page.
pub(super) async fn page(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Answer> {
    let (head, _) = request.into_parts();
    Parameters::read(head.uri.query(), &[])?;
    let caller = server.admit(&head).await?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let budget = server.millstream.budget();
    let mut jobs = server.millstream.figures();
    jobs.retain(|job| caller.session.may_read(&job.info.stream));
    for job in &mut jobs {
        job.connectors.retain(|c| c.source.as_ref().is_none_or(|source| caller.session.may_read(source)));
    }
    let text = render(&jobs, (budget.used(), budget.limit()), since.as_secs_f64());
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// A figure of each job.
struct JobFigure {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: fn(&JobFigures, f64) -> Option<f64>,
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&JobFigures, f64) -> Option<f64>) -> JobFigure {
    JobFigure { name, kind: "gauge", help, of }
}

const fn counter(name: &'static str, help: &'static str, of: fn(&JobFigures, f64) -> Option<f64>) -> JobFigure {
    JobFigure { name, kind: "counter", help, of }
}

const FIGURES: [JobFigure; 19] = [
    gauge("millstream_job_running", "Whether the job runs.", |j, _| Some(is(j, JobState::Running))),
    gauge("millstream_job_failed", "Whether the job has failed.", |j, _| Some(is(j, JobState::Failed))),
    counter("millstream_job_rows_read_total", "Rows read since the stream was made.", |j, _| j.info.rows_in.map(float)),
    counter("millstream_job_rows_written_total", "Rows written since the stream was made.", |j, _| {
        j.info.rows_out.map(float)
    }),
    counter("millstream_job_late_rows_total", "Rows dropped because their windows had closed.", |j, _| {
        Some(float(j.late))
    }),
    counter("millstream_job_dead_letters_total", "Rows put aside.", |j, _| Some(float(j.dead_letters))),
    gauge("millstream_job_epoch", "The last finished epoch.", |j, _| Some(float(j.info.epoch))),
    gauge("millstream_job_epoch_seconds", "How long the last epoch took.", |j, _| Some(j.epoch_time.as_secs_f64())),
    gauge("millstream_job_watermark_seconds", "The watermark, in seconds since 1970.", |j, _| watermark(j)),
    gauge("millstream_job_lag_seconds", "How far the watermark is behind the clock.", |j, now| {
        watermark(j).map(|at| (now - at).max(0.0))
    }),
    gauge("millstream_job_unread_rows", "Rows that are there and not committed.", |j, _| {
        j.info.lag.as_ref()?.rows.map(float)
    }),
    gauge("millstream_job_unread_bytes", "Their bytes.", |j, _| j.info.lag.as_ref()?.bytes.map(float)),
    gauge("millstream_job_unread_seconds", "For how long there have been any, or a link has been cut.", |j, _| {
        Some(j.info.lag.as_ref()?.seconds)
    }),
    gauge("millstream_job_link_up", "Whether the other side of its links is there.", |j, _| {
        Some(f64::from(u8::from(!j.info.lag.as_ref()?.is_cut()?)))
    }),
    gauge("millstream_job_checkpoint", "The last committed checkpoint.", |j, _| Some(float(j.checkpoint))),
    gauge("millstream_job_checkpoint_seconds", "How long it took from its epoch's cut to its commit.", |j, _| {
        Some(j.checkpoint_time.as_secs_f64())
    }),
    gauge("millstream_job_checkpoint_bytes", "Bytes written for it.", |j, _| Some(float(j.checkpoint_bytes))),
    gauge("millstream_job_state_bytes", "Bytes of state held by operators.", |j, _| Some(float(j.state_bytes))),
    gauge("millstream_job_queued_bytes", "Bytes that wait at operators.", |j, _| Some(float(j.queued_bytes))),
];

fn is(job: &JobFigures, state: JobState) -> f64 {
    f64::from(u8::from(job.info.state == state))
}

fn float(n: u64) -> f64 {
    n as f64
}

/// Where it is known and not the end.
fn watermark(job: &JobFigures) -> Option<f64> {
    let at = job.info.watermark;
    (at != EventTime::MIN && at != EventTime::MAX).then_some(at.0 as f64 / 1e6)
}

fn render(jobs: &[JobFigures], (used, limit): (usize, usize), now: f64) -> String {
    let mut text = String::new();
    for figure in &FIGURES {
        let values: Vec<_> = jobs.iter().filter_map(|job| Some((job, (figure.of)(job, now)?))).collect();
        if values.is_empty() {
            continue;
        }
        head(&mut text, figure.name, figure.kind, figure.help);
        for (job, value) in values {
            let _ = writeln!(text, "{}{{stream=\"{}\"}} {value}", figure.name, label(&job.info.stream));
        }
    }
    render_connectors(jobs, &mut text);
    let process = [
        ("millstream_memory_used_bytes", "Bytes of the memory budget that are used.", used as u64),
        ("millstream_memory_limit_bytes", "The memory budget.", limit as u64),
    ];
    for (name, help, value) in process {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
    if let Some(bytes) = resident() {
        let name = "process_resident_memory_bytes";
        head(&mut text, name, "gauge", "Bytes of memory that the process holds.");
        let _ = writeln!(text, "{name} {bytes}");
    }
    text
}

/// Writes what stands before the values of a figure.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a text does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// What the connectors have counted: all values of a figure stand together. Where a job reads a stream more than once, they are added up.
fn render_connectors(jobs: &[JobFigures], text: &mut String) {
    let mut all: BTreeMap<(String, bool), (String, BTreeMap<String, f64>)> = BTreeMap::new();
    for job in jobs {
        for connector in &job.connectors {
            let (side, source) = match &connector.source {
                Some(source) => ("source", format!(",source=\"{}\"", label(source))),
                None => ("sink", String::new()),
            };
            for figure in &connector.figures {
                let (name, help, value) = series(side, figure);
                let (_, values) = all.entry((name, figure.grows)).or_insert_with(|| (help, BTreeMap::new()));
                let labels = format!("stream=\"{}\"{source}", label(&job.info.stream));
                *values.entry(labels).or_default() += value;
            }
        }
    }
    for ((name, grows), (help, values)) in all {
        head(text, &name, if grows { "counter" } else { "gauge" }, &help);
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    }
}

/// The name, the help and the value of what a connector has counted. Times are in seconds, as all are there.
fn series(side: &str, figure: &Figure) -> (String, String, f64) {
    let (name, value) = match figure.name.strip_suffix("_millis") {
        Some(stem) => (format!("{stem}_seconds"), figure.value as f64 / 1e3),
        None => (figure.name.to_owned(), float(figure.value)),
    };
    let help = format!("Of a {side}: {}.", name.replace('_', " "));
    let total = if figure.grows { "_total" } else { "" };
    (format!("millstream_{side}_{name}{total}"), help, value)
}

/// A text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What the process holds, where the system says it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millstream_sql::session::{ConnectorFigures, JobInfo, JobLag};

    use super::*;

    #[test]
    fn a_page() {
        let info = JobInfo {
            stream: "a\"b".into(),
            state: JobState::Running,
            rows_in: Some(5),
            rows_out: None,
            epoch: 7,
            watermark: EventTime(10_500_000),
            progress: None,
            lag: Some(JobLag { rows: Some(5), bytes: Some(80), seconds: 0.25, link: Some("connected".into()) }),
            error: None,
        };
        let job = JobFigures {
            info,
            late: 1,
            dead_letters: 2,
            epoch_time: Duration::from_millis(3),
            checkpoint: 4,
            checkpoint_time: Duration::from_millis(20),
            checkpoint_bytes: 1000,
            state_bytes: 0,
            queued_bytes: 0,
            connectors: vec![
                ConnectorFigures {
                    source: Some("in".into()),
                    figures: vec![Figure::count("requests", 3), Figure::level("lag_millis", 250)],
                },
                ConnectorFigures { source: None, figures: vec![Figure::count("requests", 8)] },
                ConnectorFigures { source: Some("in".into()), figures: vec![Figure::count("requests", 1)] },
            ],
        };
        let text = render(&[job], (10, 100), 12.0);
        for line in [
            "# TYPE millstream_job_rows_read_total counter",
            "millstream_job_rows_read_total{stream=\"a\\\"b\"} 5",
            "millstream_job_unread_rows{stream=\"a\\\"b\"} 5",
            "millstream_job_unread_seconds{stream=\"a\\\"b\"} 0.25",
            "millstream_job_link_up{stream=\"a\\\"b\"} 1",
            "millstream_job_lag_seconds{stream=\"a\\\"b\"} 1.5",
            "millstream_job_checkpoint_seconds{stream=\"a\\\"b\"} 0.02",
            "millstream_memory_used_bytes 10",
            "# TYPE millstream_source_requests_total counter",
            "millstream_source_requests_total{stream=\"a\\\"b\",source=\"in\"} 4",
            "# TYPE millstream_source_lag_seconds gauge",
            "millstream_source_lag_seconds{stream=\"a\\\"b\",source=\"in\"} 0.25",
            "millstream_sink_requests_total{stream=\"a\\\"b\"} 8",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("rows_written"), "what is not known is not said");
    }
}
