//! Times in JSON, by RFC 3339.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serializer, de, ser};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

fn format(time: SystemTime) -> Result<String, String> {
    // The conversion panics outside years -9999 to 9999; RFC 3339 has 0 to 9999.
    let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).ok(),
        Err(before) => i128::try_from(before.duration().as_nanos()).ok().map(|n| -n),
    };
    nanos
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .ok_or_else(|| "the time is out of the range of RFC 3339".to_owned())
}

fn parse(text: &str) -> Result<SystemTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from).map_err(|error| {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a time of RFC 3339: {error}")
    })
}

/// For `#[serde(with)]` on a `SystemTime`.
pub(super) mod required {
    use super::{Deserialize, Deserializer, Serializer, SystemTime, de, format, parse, ser};

    pub(in crate::volume) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*time).map_err(ser::Error::custom)?)
    }

    pub(in crate::volume) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For `#[serde(with)]` on an `Option<SystemTime>`.
pub(super) mod optional {
    use super::{Deserialize, Deserializer, Serializer, SystemTime, de, parse, required};

    pub(in crate::volume) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => required::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::volume) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| parse(&text).map_err(de::Error::custom))
            .transpose()
    }
}
