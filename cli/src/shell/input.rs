//! The line editor: prompt, keys, history, colours, and when a statement is complete.

use std::borrow::Cow;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossterm::event::Event;
use reedline::{
    Color, ColumnarMenu, EditCommand, EditMode, Emacs, FileBackedHistory, Highlighter, KeyCode, KeyModifiers,
    MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent,
    ReedlineMenu, ReedlineRawEvent, StyledText, ValidationResult, Validator, default_emacs_keybindings,
};

use super::complete::{NameCompleter, SharedNames};
use super::{commands, words};
use crate::{config, lex};

const MENU: &str = "completion";
/// Lines of history that are kept.
const HISTORY: usize = 10_000;
/// Nobody presses two keys within this.
const BURST: Duration = Duration::from_millis(3);

/// An editor over shared names; setting `interrupt` makes it return so that something can be printed.
pub(crate) fn editor(names: SharedNames, interrupt: Arc<AtomicBool>, colour: bool) -> Reedline {
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]),
    );
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    keys.add_binding(KeyModifiers::ALT, KeyCode::Enter, ReedlineEvent::Edit(vec![EditCommand::InsertNewline]));
    let menu = ColumnarMenu::default().with_name(MENU).with_marker("> ").with_word_chars("_");
    let mut editor = Reedline::create()
        .with_validator(Box::new(Statements))
        .with_completer(Box::new(NameCompleter(names)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_edit_mode(Box::new(Keys { emacs: Emacs::new(keys), last: None }))
        .with_break_signal(interrupt)
        .use_bracketed_paste(true)
        .with_ansi_colors(colour);
    if colour {
        editor = editor.with_highlighter(Box::new(Colours));
    }
    if let Some(program) = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).ok().filter(|e| !e.is_empty()) {
        let file = std::env::temp_dir().join(format!("millstream-{}.sql", std::process::id()));
        let mut words = program.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("vi"));
        command.args(words).arg(&file);
        editor = editor.with_buffer_editor(command, file);
    }
    // without a place for it, the history lasts as long as the shell
    let history = config::history_file().and_then(|file| {
        std::fs::create_dir_all(file.parent()?).ok()?;
        FileBackedHistory::with_file(HISTORY, file).ok()
    });
    match history {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// Emacs' keys, but that Tab is white space where keys come in a burst: those were pasted or typed ahead.
struct Keys {
    emacs: Emacs,
    last: Option<Instant>,
}

impl EditMode for Keys {
    fn parse_event(&mut self, event: ReedlineRawEvent) -> ReedlineEvent {
        let now = Instant::now();
        let in_burst = self.last.replace(now).is_some_and(|last| now - last < BURST);
        let event = Event::from(event);
        if in_burst && matches!(&event, Event::Key(key) if key.code == KeyCode::Tab) {
            return ReedlineEvent::Edit(vec![EditCommand::InsertString("    ".to_owned())]);
        }
        match ReedlineRawEvent::try_from(event) {
            Ok(event) => self.emacs.parse_event(event),
            Err(()) => ReedlineEvent::None,
        }
    }

    fn edit_mode(&self) -> PromptEditMode {
        self.emacs.edit_mode()
    }
}

/// Enter ends the input when its statements are complete, or when it is a command.
pub(crate) struct Statements;

impl Validator for Statements {
    fn validate(&self, line: &str) -> ValidationResult {
        if commands::parse(line).is_some() || lex::is_complete(line) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

/// `millstream> `, and dots for the lines that follow.
pub(crate) struct StatementPrompt;

impl Prompt for StatementPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("millstream")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("    ......> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing for ",
        };
        Cow::Owned(format!(" ({failing}\"{}\")> ", search.term))
    }

    fn get_prompt_color(&self) -> Color {
        Color::Cyan
    }

    fn get_indicator_color(&self) -> Color {
        Color::Cyan
    }

    fn get_prompt_multiline_color(&self) -> Color {
        Color::DarkGray
    }
}

/// Colours for keywords, strings, numbers and comments.
struct Colours;

impl Highlighter for Colours {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut styled = StyledText::new();
        let plain = Color::Default.normal();
        if line.starts_with('\\') {
            let end = line.find(char::is_whitespace).unwrap_or(line.len());
            let (command, rest) = line.split_at(end);
            styled.push((Color::Cyan.normal(), command.to_owned()));
            styled.push((plain, rest.to_owned()));
            return styled;
        }
        for token in lex::tokens(line) {
            let style = match token.kind {
                lex::Kind::Word if words::is_keyword(token.text) => Color::Blue.bold(),
                lex::Kind::Text => Color::Green.normal(),
                lex::Kind::Number => Color::Purple.normal(),
                lex::Kind::Comment => Color::DarkGray.normal(),
                _ => plain,
            };
            styled.push((style, token.text.to_owned()));
        }
        styled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_keep_the_text() {
        for line in ["SELECT 'a' || b -- c", "\\d hot", "\\", "", "\"x\n1.5"] {
            let styled = Colours.highlight(line, 0);
            assert_eq!(styled.buffer.iter().map(|(_, text)| text.as_str()).collect::<String>(), line);
        }
    }

    #[test]
    fn enter_ends_commands_and_complete_statements() {
        let complete = |line| matches!(Statements.validate(line), ValidationResult::Complete);
        assert!(complete("SELECT 1;") && complete("\\d") && complete("exit") && complete(""));
        assert!(!complete("SELECT 1") && !complete("SELECT ';"));
    }
}
