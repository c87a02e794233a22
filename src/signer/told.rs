//! What others say, as far as it goes into a log or an Event.

const MAX_REASON: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// A reason that fits on one line.
pub(super) fn reason(text: &str) -> String {
    match text {
        "" => "without a reason".to_owned(),
        text => plain(text, MAX_REASON),
    }
}

/// A message that fits on one line.
pub(super) fn message(text: &str) -> String {
    plain(text, MAX_MESSAGE)
}

fn plain(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(most).collect()
}
