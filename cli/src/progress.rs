//! What goes on while a statement takes long: rows, rate, share done and watermark of the running jobs.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use millstream_engine::time::EventTime;
use millstream_sql::session::{JobInfo, JobState};

use crate::backend::Backend;
use crate::report;
use crate::terminal::{Screen, shorten};

/// Nothing is said about what takes less.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line on a terminal changes.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is added elsewhere.
const LOG: Duration = Duration::from_secs(10);

/// Does `work`, and shows the progress of jobs on stderr if it takes long.
pub(crate) async fn shown<T>(backend: &dyn Backend, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut meter = Meter::default();
    let in_place = Screen::stderr().is_terminal();
    let mut drawn = Drawn(false);
    let mut wait = PATIENCE;
    loop {
        if let Ok(done) = tokio::time::timeout(wait, &mut work).await {
            return done;
        }
        let first = wait == PATIENCE;
        wait = if in_place { REDRAW } else { LOG };
        let line = meter.look(&backend.jobs().await.unwrap_or_default());
        match line {
            line if in_place => drawn.replace(&line.unwrap_or_default()),
            // the first look only makes that the next one knows a rate
            Some(line) if !first => report::say(format_args!("{line}")),
            _ => {}
        }
    }
}

/// Whether the line of progress is on the terminal. It is wiped when the work ends or is cancelled.
struct Drawn(bool);

impl Drawn {
    fn replace(&mut self, line: &str) {
        let width = Screen::stderr().width.unwrap_or(80);
        let _ = write!(io::stderr().lock(), "\r\x1b[K{}", shorten(line, width.saturating_sub(1)));
        let _ = io::stderr().flush();
        self.0 = true;
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        if self.0 {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// Turns counts into rates by looking again and again.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seen: HashMap<String, (Instant, u64)>,
}

impl Meter {
    /// A line on the running jobs; `None` when none runs.
    pub(crate) fn look(&mut self, jobs: &[JobInfo]) -> Option<String> {
        let now = Instant::now();
        let mut parts = Vec::new();
        for job in jobs.iter().filter(|job| job.state == JobState::Running) {
            let rate = match self.seen.insert(job.stream.clone(), (now, job.rows_in.unwrap_or_default())) {
                Some((then, before)) if now > then => {
                    let gained = job.rows_in.unwrap_or_default().saturating_sub(before);
                    Some((gained as f64 / (now - then).as_secs_f64()) as u64)
                }
                _ => None,
            };
            parts.push(describe(job, rate));
        }
        (!parts.is_empty()).then(|| parts.join(" | "))
    }
}

fn describe(job: &JobInfo, rate: Option<u64>) -> String {
    let mut line = format!("{}: {}", job.stream, report::rows(job.rows_in.unwrap_or_default()));
    if let Some(rate) = rate {
        line += &format!(", {} rows/s", report::grouped(rate));
    }
    if let Some(share) = job.progress {
        line += &format!(", {:.0} %", share * 100.0);
    }
    if job.watermark != EventTime::MIN {
        line += &format!(", watermark {}", job.watermark);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState) -> JobInfo {
        JobInfo {
            stream: "hot".into(),
            state,
            rows_in: Some(1_200_000),
            rows_out: Some(5),
            epoch: 7,
            watermark: EventTime(978_307_200_000_000),
            progress: Some(0.42),
            error: None,
        }
    }

    #[test]
    fn a_job_in_one_line() {
        assert_eq!(
            describe(&job(JobState::Running), Some(480_000)),
            "hot: 1 200 000 rows, 480 000 rows/s, 42 %, watermark 2001-01-01 00:00:00"
        );
    }

    #[test]
    fn only_running_jobs_are_shown() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&[job(JobState::Finished), job(JobState::Failed)]), None);
        assert!(meter.look(&[job(JobState::Running)]).is_some());
    }
}
