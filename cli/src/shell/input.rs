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
use super::history::CutHistory;
use super::{commands, words};
use crate::{config, lex};

const MENU: &str = "completion";
/// Lines of history that are kept.
const HISTORY: usize = 10_000;
/// Nobody presses two keys within this.
const BURST: Duration = Duration::from_millis(3);
/// More keys than this in a burst are a text that was pasted.
const TYPED_AT_ONCE: usize = 32;

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
        .with_edit_mode(Box::new(Keys { emacs: Emacs::new(keys), burst: Burst::default() }))
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
        // Nobody else's business, even without the secrets.
        let mut options = std::fs::File::options();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&file).ok()?;
        FileBackedHistory::with_file(HISTORY, file).ok()
    });
    match history {
        Some(history) => editor.with_history(Box::new(CutHistory(history))),
        None => editor,
    }
}

/// Emacs' keys, but that a Tab which was pasted is white space: completing there would change the text.
struct Keys {
    emacs: Emacs,
    burst: Burst,
}

/// Keys that came faster than somebody types.
#[derive(Default)]
struct Burst {
    last: Option<Instant>,
    keys: usize,
    /// Whether it is at the beginning of a line that is not its first.
    indenting: bool,
}

impl Burst {
    /// Takes a key; says whether it stands in a text that was pasted. Programs that type `sel` and Tab at once want to
    /// complete.
    fn is_pasted(&mut self, key: KeyCode, now: Instant) -> bool {
        if self.last.replace(now).is_none_or(|last| now.duration_since(last) >= BURST) {
            (self.keys, self.indenting) = (0, false);
        }
        let pasted = self.indenting || self.keys > TYPED_AT_ONCE;
        self.keys += 1;
        self.indenting = match key {
            KeyCode::Enter => true,
            KeyCode::Tab | KeyCode::Char(' ') => self.indenting,
            _ => false,
        };
        pasted
    }
}

impl EditMode for Keys {
    fn parse_event(&mut self, event: ReedlineRawEvent) -> ReedlineEvent {
        let event = Event::from(event);
        if let Event::Key(key) = &event
            && self.burst.is_pasted(key.code, Instant::now())
            && key.code == KeyCode::Tab
        {
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
    fn tabs_of_a_pasted_text_are_no_completion() {
        let now = Instant::now();
        let pasted = |text: &str, burst: &mut Burst| {
            let key = |c| match c {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                c => KeyCode::Char(c),
            };
            text.chars().fold(false, |_, c| burst.is_pasted(key(c), now))
        };
        assert!(!pasted("SELECT * FROM \t", &mut Burst::default()));
        assert!(pasted("SELECT\n\t", &mut Burst::default()));
        assert!(pasted("SELECT\n \t\t", &mut Burst::default()));
        assert!(!pasted("SELECT\n1\t", &mut Burst::default()));
        assert!(pasted("SELECT a_long_column, another_one\tAS\t", &mut Burst::default()));
        // by hand
        let mut burst = Burst::default();
        assert!(pasted("SELECT\n\t", &mut burst));
        assert!(!burst.is_pasted(KeyCode::Tab, now + BURST));
    }

    #[test]
    fn enter_ends_commands_and_complete_statements() {
        let complete = |line| matches!(Statements.validate(line), ValidationResult::Complete);
        assert!(complete("SELECT 1;") && complete("\\d") && complete("exit") && complete(""));
        assert!(!complete("SELECT 1") && !complete("SELECT ';"));
    }
}
