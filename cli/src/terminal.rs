//! What we write to: how wide and high it is, whether it shows colours, and text that is redrawn in place.

use std::io::{self, IsTerminal, Write};

use crossterm::{QueueableCommand, cursor, terminal};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Where text goes. `width` is absent where lines may have any length: files and pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Columns.
    pub(crate) width: Option<usize>,
    /// Lines.
    pub(crate) height: usize,
    /// Whether colours are understood and wanted.
    pub(crate) colour: bool,
}

impl Screen {
    /// No limits and no colours.
    pub(crate) const PLAIN: Screen = Screen { width: None, height: 24, colour: false };

    /// What stdout is now; a window may change its size at any time.
    pub(crate) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// What stderr is now.
    pub(crate) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(is_terminal: bool) -> Self {
        if !is_terminal {
            return Self::PLAIN;
        }
        let (width, height) = terminal::size().unwrap_or((80, 24));
        Screen {
            width: Some(usize::from(width).max(20)),
            height: usize::from(height).max(5),
            colour: std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// Whether somebody looks at it.
    pub(crate) fn is_terminal(self) -> bool {
        self.width.is_some()
    }
}

/// `text` in the SGR `style`, such as `1;31`, where colours are shown.
pub(crate) fn paint(text: &str, style: &str, colour: bool) -> String {
    if colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The columns that `text` takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// `text` cut to `limit` columns, the last of them `…` if anything is missing.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > limit {
            break;
        }
        used += w;
        short.push(c);
    }
    if limit > 0 {
        short.push('…');
    }
    short
}

/// Text that is redrawn in place: each drawing replaces the one before.
#[derive(Debug, Default)]
pub(crate) struct Live {
    lines: u16,
}

impl Live {
    /// Replaces what was drawn. The text must end with a newline, be no wider than the screen and not as high.
    pub(crate) fn draw(&mut self, text: &str, out: &mut impl Write) -> io::Result<()> {
        out.queue(terminal::BeginSynchronizedUpdate)?;
        self.clear(out)?;
        out.write_all(text.as_bytes())?;
        self.lines = u16::try_from(text.lines().count()).unwrap_or(u16::MAX);
        out.queue(terminal::EndSynchronizedUpdate)?;
        out.flush()
    }

    /// Takes away what was drawn.
    pub(crate) fn clear(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.lines > 0 {
            out.queue(cursor::MoveToPreviousLine(self.lines))?;
            out.queue(terminal::Clear(terminal::ClearType::FromCursorDown))?;
            self.lines = 0;
        }
        out.flush()
    }

    /// Leaves what was drawn; the next drawing goes below.
    pub(crate) fn keep(&mut self) {
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_text_fits() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("日本語", 4), "日…");
        assert_eq!(shorten("日本語", 5), "日本…");
        assert_eq!(shorten("abc", 0), "");
        for limit in 0..8 {
            assert!(width(&shorten("a日é👍z", limit)) <= limit);
        }
    }

    #[test]
    fn a_drawing_replaces_the_one_before() {
        let (mut live, mut out) = (Live::default(), Vec::new());
        live.draw("a\nb\n", &mut out).unwrap();
        live.draw("c\n", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\x1b[2F"), "{text:?}");
        assert_eq!(live.lines, 1);
    }
}
