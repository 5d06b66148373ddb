//! Passwords that somebody types, without showing them.

use std::io::{self, BufRead, IsTerminal, Write};

use millstream_sql::rights::Hidden;
use millstream_sql::{ErrorKind, Result};

use crate::report;

/// Where a password for the shell may come from.
const VARIABLE: &str = "MILLSTREAM_PASSWORD";

/// The longest line that is taken for one.
const LONGEST: u64 = 4096;

/// The password of `user` on a server: from the environment, or typed.
pub(crate) fn of_login(user: &str) -> Result<Hidden> {
    if let Ok(password) = std::env::var(VARIABLE) {
        return Ok(Hidden::new(password));
    }
    if !io::stdin().is_terminal() {
        let e = report::fail(ErrorKind::Invalid, format!("there is nobody to ask for the password of \"{user}\""));
        return Err(e.with_hint(format!("Set {VARIABLE}.")));
    }
    typed(&format!("password of {user}: "))
}

/// A new password: typed twice, or a line of standard input.
pub(crate) fn new(user: &str) -> Result<Hidden> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let first = typed(&format!("password for {user}: "))?;
    if typed("once more: ")? != first {
        return Err(report::fail(ErrorKind::Invalid, "the two are not the same"));
    }
    Ok(first)
}

fn typed(prompt: &str) -> Result<Hidden> {
    let mut screen = io::stderr();
    // What is not shown is asked for again by who misses it.
    let _ = write!(screen, "{prompt}").and_then(|()| screen.flush());
    let silent = Silent::begin();
    let password = line();
    drop(silent);
    report::say(format_args!(""));
    password
}

fn line() -> Result<Hidden> {
    let mut text = String::new();
    let mut input = io::Read::take(io::stdin().lock(), LONGEST);
    input.read_line(&mut text).map_err(|e| report::io_error("the password cannot be read", e))?;
    Ok(Hidden::new(text.trim_end_matches(['\r', '\n'])))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silent {
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
}

impl Silent {
    #[cfg(unix)]
    fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            // Where it cannot be set, it shows.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &silent);
        }
        Silent { before }
    }

    #[cfg(not(unix))]
    fn begin() -> Self {
        Silent {}
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}
