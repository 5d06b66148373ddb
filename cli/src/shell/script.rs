//! Statements and commands that come from a pipe or with `-c`: in order, until one fails.

use millstream_sql::{ErrorKind, Result};

use super::commands::{self, Command};
use super::render::Shell;
use crate::report::{self, Script};
use crate::{lex, run};

/// Executes the scripts; gives the exit code.
pub(crate) async fn execute(mut shell: Shell, scripts: &[Script]) -> u8 {
    'all: for script in scripts {
        for piece in pieces(&script.text) {
            let done = match piece {
                Piece::Command(Ok(Command::Quit)) => break 'all,
                Piece::Command(Ok(command)) => shell.command(command).await.map(|_| ()),
                Piece::Command(Err(message)) => Err(report::fail(ErrorKind::Invalid, message)),
                Piece::Statements(text) => statements(&shell, &Script { name: script.name.clone(), text }).await,
            };
            if let Err(e) = done {
                return run::stopped(&e, Some(script));
            }
        }
    }
    run::complete(shell.backend().as_ref()).await
}

async fn statements(shell: &Shell, script: &Script) -> Result<()> {
    let (mut out, format, view) = shell.output()?;
    run::execute(shell.backend().as_ref(), script, format, view, &mut out).await
}

/// A part of a script.
#[derive(Debug, PartialEq)]
enum Piece {
    Command(Result<Command, String>),
    /// Statements, behind as many empty lines as there are before them, so that errors say the right line.
    Statements(String),
}

/// A line between statements may be a command.
fn pieces(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut open = String::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let command = commands::parse(line).filter(|_| lex::is_complete(&open));
        match command {
            Some(command) => {
                found.push(Piece::Statements(std::mem::replace(&mut open, "\n".repeat(i + 1))));
                found.push(Piece::Command(command));
            }
            None => open.push_str(line),
        }
    }
    found.push(Piece::Statements(open));
    found.retain(|piece| !matches!(piece, Piece::Statements(text) if text.trim().is_empty()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_between_statements() {
        let found = pieces("\\d hot\nSELECT 1;\n\\nope\nSELECT '\n\\d\n';\nSELECT 2\n");
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0], Piece::Command(Ok(Command::Describe(Some("hot".into())))));
        assert_eq!(found[1], Piece::Statements("\nSELECT 1;\n".into()));
        assert!(matches!(&found[2], Piece::Command(Err(_))));
        assert_eq!(found[3], Piece::Statements("\n\n\nSELECT '\n\\d\n';\nSELECT 2\n".into()));
    }

    #[test]
    fn a_script_without_commands_is_one_piece() {
        assert_eq!(pieces("SELECT 1;\nSELECT 2"), [Piece::Statements("SELECT 1;\nSELECT 2".into())]);
        assert_eq!(pieces(" \n"), []);
    }
}
