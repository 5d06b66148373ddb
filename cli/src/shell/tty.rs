//! The terminal that somebody types at, also while nobody reads it.
//!
//! While a statement runs the terminal keeps what is typed for the next prompt, neither echoed nor changed: lines that
//! its own editor had taken would end in newlines, which the shell's editor reads as part of one burst of keys, of which
//! it takes the first line only. Ctrl-C is a signal then, so that a statement can be interrupted.

use std::io::{self, Write};
#[cfg(unix)]
use std::time::Duration;

use crossterm::{QueueableCommand, event};

/// How often it is asked whether the terminal is still there.
#[cfg(unix)]
const GONE: Duration = Duration::from_millis(250);

/// The terminal of the shell. Dropping it gives the terminal back as it was.
pub(crate) struct Tty {
    #[cfg(unix)]
    original: rustix::termios::Termios,
}

#[cfg(unix)]
impl Tty {
    /// Takes the terminal on stdin; also gives what was typed before. `None`: there is no terminal to take.
    pub(crate) fn take() -> Option<(Self, String)> {
        let original = rustix::termios::tcgetattr(io::stdin()).ok()?;
        let tty = Tty { original };
        let ahead = tty.waiting();
        tty.quiet();
        Some((tty, ahead))
    }

    /// How it is between two prompts.
    pub(crate) fn quiet(&self) {
        self.set_quiet(1);
        // What is pasted now comes in one piece, too.
        let _ = io::stderr().queue(event::EnableBracketedPaste).and_then(Write::flush);
    }

    /// Reads what the terminal has taken line by line.
    fn waiting(&self) -> String {
        use std::io::Read;
        use std::os::fd::AsFd;
        // With no least number of bytes, reading does not wait.
        self.set_quiet(0);
        let Ok(input) = io::stdin().as_fd().try_clone_to_owned() else { return String::new() };
        let (mut input, mut typed, mut some) = (std::fs::File::from(input), Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = input.read(&mut some) {
            typed.extend_from_slice(some.get(..n).unwrap_or_default());
        }
        String::from_utf8_lossy(&typed).replace('\r', "\n")
    }

    fn set_quiet(&self, least: u8) {
        use rustix::termios::{InputModes, LocalModes, SpecialCodeIndex};
        let mut quiet = self.original.clone();
        quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        quiet.input_modes.remove(InputModes::ICRNL | InputModes::IGNCR);
        // Enter is one key, whatever a program that types sends for it.
        quiet.input_modes.insert(InputModes::INLCR);
        quiet.special_codes[SpecialCodeIndex::VMIN] = least;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        set(&quiet);
    }

    /// How it is at a prompt: raw, as the editor wants it, but for newlines, which are Enter.
    pub(crate) fn raw(&self) {
        use rustix::termios::InputModes;
        if crossterm::terminal::enable_raw_mode().is_ok()
            && let Ok(mut raw) = rustix::termios::tcgetattr(io::stdin())
        {
            raw.input_modes.insert(InputModes::INLCR);
            set(&raw);
        }
    }
}

/// A terminal that cannot be set has gone away, which is noticed elsewhere.
#[cfg(unix)]
fn set(attributes: &rustix::termios::Termios) {
    let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, attributes);
}

#[cfg(unix)]
impl Drop for Tty {
    fn drop(&mut self) {
        let _ = io::stderr().queue(event::DisableBracketedPaste).and_then(Write::flush);
        // The editor may not have ended.
        let _ = crossterm::terminal::disable_raw_mode();
        set(&self.original);
    }
}

#[cfg(not(unix))]
impl Tty {
    /// Nothing needs to be taken here.
    pub(crate) fn take() -> Option<(Self, String)> {
        Some((Tty {}, String::new()))
    }

    /// The same as ever.
    pub(crate) fn quiet(&self) {}

    /// The editor does all of it.
    pub(crate) fn raw(&self) {}
}

/// Waits until the terminal on stdin has gone away: its window was closed, the line was cut. A signal says so, too, but
/// not to every process.
#[cfg(unix)]
pub(crate) async fn gone() {
    while rustix::termios::tcgetattr(io::stdin()).is_ok() {
        tokio::time::sleep(GONE).await;
    }
}

/// Waits for what is not known here.
#[cfg(not(unix))]
pub(crate) async fn gone() {
    std::future::pending().await
}
