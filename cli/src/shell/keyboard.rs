//! Lines from the keyboard, read by a thread of its own: the editor cannot be interrupted when the terminal under it
//! has gone away, and nothing else may wait for it then.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as threads};
use std::time::Duration;

use reedline::{EditCommand, Reedline, Signal, ValidationResult, Validator};
use tokio::sync::mpsc;

use super::input::{StatementPrompt, Statements};

/// The editor looks for an interruption every 100 ms.
const SETTLE: Duration = Duration::from_millis(500);

/// Where lines come from.
pub(crate) struct Keyboard {
    asks: threads::SyncSender<Ask>,
    lines: mpsc::Receiver<io::Result<Signal>>,
    /// Makes the editor return.
    interrupt: Arc<AtomicBool>,
    asked: bool,
}

/// What is asked of the thread: a line.
struct Ask {
    /// Whether to drop what was typed before the editor ran.
    afresh: bool,
}

impl Keyboard {
    /// A keyboard at `editor`, which returns when `interrupt` is set; `ahead` was typed before.
    pub(crate) fn start(editor: Reedline, interrupt: Arc<AtomicBool>, ahead: String) -> io::Result<Self> {
        let (asks, asked) = threads::sync_channel(1);
        let (answers, lines) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("keyboard".to_owned())
            .spawn(move || serve(editor, ahead, &asked, &answers))?;
        Ok(Keyboard { asks, lines, interrupt, asked: false })
    }

    /// What was typed up to an Enter that ends it, or what made the editor return. With `afresh`, what was typed
    /// before the editor ran is dropped.
    pub(crate) async fn line(&mut self, afresh: bool) -> io::Result<Signal> {
        if !self.asked && self.asks.try_send(Ask { afresh }).is_err() {
            return Err(ended());
        }
        self.asked = true;
        let line = self.lines.recv().await.unwrap_or_else(|| Err(ended()));
        self.asked = false;
        line
    }

    /// Makes the editor leave the terminal, if it can. Says whether it had it.
    pub(crate) async fn leave(&mut self) -> bool {
        let had = self.asked;
        if had {
            self.interrupt.store(true, Ordering::SeqCst);
            self.asked = tokio::time::timeout(SETTLE, self.lines.recv()).await.is_err();
        }
        had
    }
}

fn ended() -> io::Error {
    io::Error::other("the line editor has ended")
}

fn serve(
    mut editor: Reedline,
    ahead: String,
    asks: &threads::Receiver<Ask>,
    answers: &mpsc::Sender<io::Result<Signal>>,
) {
    let mut ahead = Ahead(ahead);
    let mut accepting = false;
    for ask in asks {
        if ask.afresh {
            ahead = Ahead(String::new());
        }
        if !accepting {
            let (text, whole) = ahead.next();
            if !text.is_empty() {
                editor.run_edit_commands(&[EditCommand::InsertString(text)]);
            }
            accepting = whole;
        }
        editor = editor.with_immediately_accept(accepting);
        let line = editor.read_line(&StatementPrompt);
        accepting &= matches!(line, Ok(Signal::ExternalBreak(_)));
        if answers.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Drops the keys that have been typed ahead. Those that the terminal still had it has dropped by itself at Ctrl-C.
pub(crate) fn drop_keys() {
    let typed = io::stdin().is_terminal();
    while typed && matches!(crossterm::event::poll(Duration::ZERO), Ok(true)) && crossterm::event::read().is_ok() {}
}

/// What was typed before the editor ran.
struct Ahead(String);

impl Ahead {
    /// What the editor would give next, and whether it is whole; else what it would show.
    fn next(&mut self) -> (String, bool) {
        let text = std::mem::take(&mut self.0).replace(|c: char| c.is_control() && c != '\n' && c != '\t', "");
        let ends = text.match_indices('\n').map(|(at, _)| at);
        let whole = |at: &usize| {
            let input = text.get(..*at).unwrap_or_default();
            !input.trim().is_empty() && matches!(Statements.validate(input), ValidationResult::Complete)
        };
        match ends.into_iter().find(whole) {
            Some(at) => {
                text.get(at + 1..).unwrap_or_default().clone_into(&mut self.0);
                (text.get(..at).unwrap_or_default().trim_start().to_owned(), true)
            }
            None => (text.trim_start().to_owned(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_ahead_comes_statement_by_statement() {
        let mut ahead = Ahead("\nSELECT 1;\nSELECT\n 2;\n\\d\n\nSELECT 3\n".into());
        assert_eq!(ahead.next(), ("SELECT 1;".into(), true));
        assert_eq!(ahead.next(), ("SELECT\n 2;".into(), true));
        assert_eq!(ahead.next(), ("\\d".into(), true));
        assert_eq!(ahead.next(), ("SELECT 3\n".into(), false));
        assert_eq!(ahead.next(), (String::new(), false));
    }

    #[test]
    fn keys_that_are_no_text_are_left_out() {
        assert_eq!(Ahead("SELECT\u{7} 1;\u{4}\n".into()).next(), ("SELECT 1;".into(), true));
    }
}
