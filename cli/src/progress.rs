//! What goes on while a statement takes long: rows, rate, share done and watermark of the running jobs.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use millstream_engine::time::EventTime;
use millstream_sql::session::{JobInfo, JobState};

use crate::backend::Backend;
use crate::report;
use crate::terminal::{self, Screen, shorten};

/// Nothing is said about what takes less.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line on a terminal changes.
const REDRAW: Duration = Duration::from_millis(200);
/// A rate is over so much time.
const WINDOW: Duration = Duration::from_secs(5);
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
        let width = Screen::stderr().width.unwrap_or(usize::MAX);
        let line = meter.look(&backend.jobs().await.unwrap_or_default(), width);
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
///
/// Counts move in steps, when an epoch ends or a large unit has been read, so a rate is over what the last seconds
/// brought and not over the last look.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seen: HashMap<String, VecDeque<(Instant, u64)>>,
}

impl Meter {
    /// A line on the running jobs; `None` when none runs. Where all of them have no room in `width` columns, it is on
    /// what they do together.
    pub(crate) fn look(&mut self, jobs: &[JobInfo], width: usize) -> Option<String> {
        let now = Instant::now();
        let running: Vec<&JobInfo> = jobs.iter().filter(|job| job.state == JobState::Running).collect();
        self.seen.retain(|stream, _| running.iter().any(|job| job.stream == *stream));
        let rates: Vec<Option<u64>> = running
            .iter()
            .map(|job| rate(self.seen.entry(job.stream.clone()).or_default(), now, job.rows_in.unwrap_or_default()))
            .collect();
        let each: Vec<String> = running.iter().zip(&rates).map(|(job, rate)| describe(job, *rate)).collect();
        let line = each.join(" | ");
        match running.len() {
            0 => None,
            2.. if terminal::width(&line) >= width => Some(together(&running, &rates)),
            _ => Some(line),
        }
    }
}

/// `3 jobs: 61 000 000 rows, 2 400 000 rows/s, hot 42 %`: the share is the least one.
fn together(jobs: &[&JobInfo], rates: &[Option<u64>]) -> String {
    let rows: u64 = jobs.iter().filter_map(|job| job.rows_in).sum();
    let mut line = format!("{}: {}", report::counted(jobs.len() as u64, "job"), report::rows(rows));
    if rates.iter().any(Option::is_some) {
        line += &format!(", {} rows/s", report::grouped(rates.iter().flatten().sum()));
    }
    let shares = jobs.iter().filter_map(|job| Some((job.progress?, &job.stream)));
    if let Some((share, stream)) = shares.min_by(|a, b| a.0.total_cmp(&b.0)) {
        line += &format!(", {stream} {:.0} %", share * 100.0);
    }
    line
}

/// Rows a second over [`WINDOW`], or over what there was of it; what is older is forgotten.
fn rate(seen: &mut VecDeque<(Instant, u64)>, now: Instant, rows: u64) -> Option<u64> {
    // A count that falls is another run's.
    if seen.back().is_some_and(|(_, before)| *before > rows) {
        seen.clear();
    }
    while seen.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= WINDOW) {
        seen.pop_front();
    }
    let first = seen.front().copied();
    seen.push_back((now, rows));
    let (then, before) = first.filter(|(then, _)| now > *then)?;
    Some(((rows - before) as f64 / now.duration_since(then).as_secs_f64()) as u64)
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
            lag: None,
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
    fn a_rate_does_not_follow_the_steps_of_a_count() {
        let (mut seen, start) = (VecDeque::new(), Instant::now());
        let mut rates = Vec::new();
        for look in 0..100_u64 {
            // looked at five times a second, the count moves once a second
            let now = start + Duration::from_millis(200 * look);
            rates.extend(rate(&mut seen, now, look / 5 * 1_000));
        }
        let settled = &rates[30..];
        assert!(settled.iter().all(|r| (800..=1_200).contains(r)), "{settled:?}");
        assert!(seen.len() <= 27, "what is older is forgotten");
        // a job that begins anew begins its rate anew
        assert_eq!(rate(&mut seen, start + Duration::from_secs(21), 5), None);
        assert_eq!(rate(&mut seen, start + Duration::from_secs(22), 15), Some(10));
    }

    #[test]
    fn only_running_jobs_are_shown() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(&[job(JobState::Finished), job(JobState::Failed)], 80), None);
        assert!(meter.look(&[job(JobState::Running)], 80).is_some());
    }

    #[test]
    fn many_jobs_are_told_together() {
        let jobs: Vec<JobInfo> = [("hot", 0.42), ("passed", 0.3)]
            .map(|(name, share)| JobInfo { stream: name.into(), progress: Some(share), ..job(JobState::Running) })
            .into();
        let mut meter = Meter::default();
        assert!(meter.look(&jobs, usize::MAX).unwrap().contains(" | passed: 1 200 000 rows"));
        let line = meter.look(&jobs, 80).unwrap();
        assert!(line.starts_with("2 jobs: 2 400 000 rows, ") && line.ends_with(" rows/s, passed 30 %"), "{line}");
    }
}
