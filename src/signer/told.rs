//! What others say, as far as it goes into a log or an Event.

const MAX_REASON: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// A reason and a message that fit on one line.
pub(super) fn told(reason: &str, message: &str) -> (String, String) {
    let reason = match reason {
        "" => "without a reason".to_owned(),
        reason => plain(reason, MAX_REASON),
    };
    (reason, plain(message, MAX_MESSAGE))
}

fn plain(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(most).collect()
}
