//! Colours for those who want them, and nothing else that steers a terminal.

use std::ffi::OsString;

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Style {
    pub(super) colour: bool,
}

/// What is shown in a colour.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Good,
    Bad,
    Doubtful,
    Strong,
}

// === impl Style ===

impl Style {
    /// Colours on a terminal, unless NO_COLOR (no-color.org) or TERM says otherwise.
    pub(in crate::cli) fn of(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty())
            || variable("TERM").is_some_and(|value| value == "dumb");
        Self { colour: terminal && !refused }
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Doubtful => 33,
            Tone::Strong => 1,
        };
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// A certificate's names and a record's messages are somebody else's words: they must not steer
/// the terminal.
pub(in crate::cli) fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        match steers(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let of = |terminal, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            Style::of(terminal, variable).colour
        };
        assert!(of(true, &[]));
        assert!(of(true, &[("NO_COLOR", ""), ("TERM", "xterm")]));
        assert!(!of(false, &[]));
        assert!(!of(true, &[("NO_COLOR", "1")]));
        assert!(!of(true, &[("TERM", "dumb")]));
        let painted = |colour| Style { colour }.paint(Tone::Good, "ok");
        assert_eq!((painted(true).as_str(), painted(false).as_str()), ("\x1b[32mok\x1b[0m", "ok"));
    }
}
