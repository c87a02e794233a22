//! Instants and spans as people and programs read them.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer, ser};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

/// An instant. In JSON by RFC 3339; for people in UTC to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Moment(pub(in crate::cli) SystemTime);

// === impl Moment ===

impl Moment {
    fn date(self) -> Option<OffsetDateTime> {
        // Not `OffsetDateTime::from`, which panics on a time that a hostile file may have.
        let nanos = match self.0.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).ok()?,
            Err(before) => -i128::try_from(before.duration().as_nanos()).ok()?,
        };
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
    }

    /// `2026-11-03 10:00:00Z`
    pub(in crate::cli) fn for_people(self) -> String {
        let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
        self.date()
            .and_then(|date| date.format(form).ok())
            .unwrap_or_else(|| "beyond the calendar".to_owned())
    }

    /// Whole seconds from `now`, negative for the past.
    pub(in crate::cli) fn seconds_from(self, now: SystemTime) -> i64 {
        let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        match self.0.duration_since(now) {
            Ok(ahead) => whole(ahead),
            Err(past) => -whole(past.duration()),
        }
    }

    /// `in 42m 10s`, `3m 2s ago`, `just now`
    pub(in crate::cli) fn relative(self, now: SystemTime) -> String {
        match self.0.duration_since(now) {
            Ok(ahead) if ahead < Duration::from_secs(1) => "just now".to_owned(),
            Ok(ahead) => format!("in {}", span(ahead)),
            Err(past) if past.duration() < Duration::from_secs(1) => "just now".to_owned(),
            Err(past) => format!("{} ago", span(past.duration())),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `null`, rather than no report, for a time that RFC 3339 cannot write.
        match self.date().map(|date| date.format(&Rfc3339)) {
            Some(Ok(text)) => serializer.serialize_str(&text),
            Some(Err(time::error::Format::StdIo(error))) => Err(ser::Error::custom(error)),
            _ => serializer.serialize_none(),
        }
    }
}

/// The two greatest units of a span, rounded down: `42m 10s`, `3d 4h`, `9s`.
pub(super) fn span(span: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(365 * 86_400, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut seconds = span.as_secs();
    let mut parts: Vec<String> = Vec::new();
    for (unit, name) in UNITS {
        let count = seconds / unit;
        // The unit after the greatest is there or left out, never a smaller one.
        if parts.len() == 1 || count > 0 {
            parts.push(format!("{count}{name}"));
        }
        seconds %= unit;
        if parts.len() == 2 {
            break;
        }
    }
    parts.retain(|part| !part.starts_with('0'));
    match parts.is_empty() {
        true => "less than 1s".to_owned(),
        false => parts.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_span_shows_its_two_greatest_units() {
        for (seconds, text) in [
            (0, "less than 1s"),
            (1, "1s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (2530, "42m 10s"),
            (3600, "1h"),
            (3601, "1h"),
            (3660, "1h 1m"),
            (86_399, "23h 59m"),
            (86_400, "1d"),
            (86_460, "1d"),
            (273_600, "3d 4h"),
            (364 * 86_400 + 3600, "364d 1h"),
            (365 * 86_400, "1y"),
            (366 * 86_400 + 7200, "1y 1d"),
            (10 * 365 * 86_400, "10y"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(span(Duration::from_millis(999)), "less than 1s");
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_700_000);
        let at = |offset: i64| {
            let distance = Duration::from_secs(offset.unsigned_abs());
            Moment(if offset < 0 { now - distance } else { now + distance })
        };
        assert_eq!(at(2530).relative(now), "in 42m 10s");
        assert_eq!(at(-182).relative(now), "3m 2s ago");
        assert_eq!(at(0).relative(now), "just now");
        let half = Duration::from_millis(500);
        assert_eq!(at(0).relative(now + half), "just now");
        assert_eq!(at(-182).seconds_from(now), -182);
        assert_eq!(at(0).for_people(), "2026-11-03 10:00:00Z");
        let json = serde_json::to_string(&at(0)).unwrap();
        assert_eq!(json, "\"2026-11-03T10:00:00Z\"");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_no_panic() {
        let far = Moment(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60));
        assert_eq!(far.for_people(), "beyond the calendar");
        assert_eq!(serde_json::to_string(&far).unwrap(), "null");
        far.relative(SystemTime::UNIX_EPOCH);
    }

    proptest! {
        #[test]
        fn every_span_is_short_and_says_something(seconds in any::<u64>()) {
            let text = span(Duration::from_secs(seconds));
            prop_assert!(!text.is_empty() && text.split(' ').count() <= 3);
        }
    }
}
