//! Durations as Kubernetes users write them: `1h30m`, `90s`.

use std::time::Duration;

/// The longest we read: a hundred years.
const MAX: u128 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// Why a duration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not Go's form of a duration.
    #[error("it is not a duration; write it like 1h30m, 90s or 3600s")]
    Malformed,
    /// Not a whole number of seconds, or none at all.
    #[error("it must be a whole number of seconds, one at least")]
    NotWholeSeconds,
    /// Over a hundred years.
    #[error("it is longer than a hundred years")]
    TooLong,
}

/// Reads Go's form (`time.ParseDuration`) of a positive number of whole seconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() || text.len() > 64 {
        return Err(DurationError::Malformed);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Malformed);
        }
        let (unit, after) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((*unit, after.strip_prefix(name)?)))
            .ok_or(DurationError::Malformed)?;
        nanos = amount(whole, fraction, unit)?
            .checked_add(nanos)
            .filter(|nanos| *nanos <= MAX)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    let seconds = nanos / 1_000_000_000;
    if seconds == 0 || !nanos.is_multiple_of(1_000_000_000) {
        return Err(DurationError::NotWholeSeconds);
    }
    u64::try_from(seconds).map(Duration::from_secs).or(Err(DurationError::TooLong))
}

/// Units in nanoseconds; the longer of two names that begin alike comes first.
const UNITS: [(&str, u128); 7] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn amount(whole: &str, fraction: &str, unit: u128) -> Result<u128, DurationError> {
    let number = |digits: &str| match digits {
        "" => Ok(0),
        digits => digits.parse::<u128>().or(Err(DurationError::TooLong)),
    };
    let whole = number(whole)?.checked_mul(unit).ok_or(DurationError::TooLong)?;
    // Beyond thirteen digits nothing is left even of an hour in nanoseconds.
    let fraction = fraction.get(..13).unwrap_or(fraction);
    let scale = 10u128.pow(fraction.len() as u32);
    Ok(whole + number(fraction)? * unit / scale)
}

/// The shortest such form of a number of whole seconds: `1h30m`, `45s`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let text: String =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gos_forms() {
        for (text, seconds) in [
            ("1h", 3600),
            ("1h30m", 5400),
            ("90s", 90),
            ("3600s", 3600),
            ("1.5h", 5400),
            (".5m", 30),
            ("1.m", 60),
            ("1000ms", 1),
            ("30m1h", 5400),
            ("500ms500ms", 1),
            ("1000000us", 1),
            ("1000000µs", 1),
            ("0h10s", 10),
            ("876000h", 3_153_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for (text, error) in [
            ("", DurationError::Malformed),
            ("1", DurationError::Malformed),
            ("3600", DurationError::Malformed),
            ("h", DurationError::Malformed),
            (".h", DurationError::Malformed),
            ("1 h", DurationError::Malformed),
            ("-1h", DurationError::Malformed),
            ("+1h", DurationError::Malformed),
            ("1d", DurationError::Malformed),
            ("1hour", DurationError::Malformed),
            ("1h ", DurationError::Malformed),
            ("1e3s", DurationError::Malformed),
            ("१h", DurationError::Malformed),
            ("0s", DurationError::NotWholeSeconds),
            ("500ms", DurationError::NotWholeSeconds),
            ("1.5s", DurationError::NotWholeSeconds),
            ("876001h", DurationError::TooLong),
            ("99999999999999999999999999999999999999999999h", DurationError::TooLong),
            ("999999999999999999999999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn formats() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (5400, "1h30m"), (86_401, "24h1s")]
        {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_can_be_read(seconds in 1u64..3_000_000_000) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_input_panics(text in "[0-9.hmsµnu]{0,70}|.*") {
            let _ = parse(&text);
        }
    }
}
