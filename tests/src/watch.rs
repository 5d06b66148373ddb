//! A watchdog in a thread of its own: a test that hangs ends, and says what it was doing, also when the threads of the
//! runtime are the ones that hang.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// No single step of a test takes this long.
pub const LONGEST_STEP: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Watched {
    step: String,
    /// Goes up with each step, so that a step that has ended in time is not mistaken for the next.
    number: u64,
    ended: bool,
}

/// Ends the process when a step takes too long; dropped when the test is over.
#[derive(Debug)]
pub struct Watchdog {
    watched: Arc<(Mutex<Watched>, Condvar)>,
}

impl Watchdog {
    /// Starts to watch.
    pub fn start() -> Self {
        Self::with(LONGEST_STEP, |step| {
            // Not by a macro: the test's output is captured, and would be lost.
            let _ = writeln!(std::io::stderr(), "\n{step}\n  hangs: it took longer than {LONGEST_STEP:?}");
            std::process::abort()
        })
    }

    fn with(longest: Duration, bite: impl Fn(&str) + Send + 'static) -> Self {
        let watched = Arc::new((Mutex::new(Watched::default()), Condvar::new()));
        let shared = watched.clone();
        std::thread::spawn(move || {
            let (watched, moved) = &*shared;
            let mut watched = watched.lock();
            while !watched.ended {
                let number = watched.number;
                let waited = moved.wait_for(&mut watched, longest);
                if waited.timed_out() && number == watched.number && number > 0 && !watched.ended {
                    bite(&watched.step);
                }
            }
        });
        Watchdog { watched }
    }

    /// A step begins: what is printed if it does not end.
    pub fn step(&self, step: String) {
        let (watched, moved) = &*self.watched;
        let mut watched = watched.lock();
        (watched.step, watched.number) = (step, watched.number + 1);
        moved.notify_all();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let (watched, moved) = &*self.watched;
        watched.lock().ended = true;
        moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bites_when_nothing_moves() {
        let (bitten, wait) = std::sync::mpsc::channel();
        let dog = Watchdog::with(Duration::from_millis(50), move |step| bitten.send(step.to_owned()).unwrap());
        dog.step("one".to_owned());
        dog.step("two".to_owned());
        // This thread does nothing, as one in a busy loop would do nothing for the dog.
        assert_eq!(wait.recv().unwrap(), "two");
    }
}
