//! What a token says, as people and programs read it.

use std::time::{Duration, SystemTime};

use prost_types::{Struct, value::Kind};
use serde_json::{Map, Value, json};

use crate::cli::inspect::{Moment, clean};

/// The claims of a token, the standard's first.
pub(super) fn rows(claims: &Map<String, Value>, now: SystemTime) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        text.push_str(&format!("  {name:<9} {}\n", clean(&value)));
    };
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some(audience) = claims.get("aud") {
        let many = audience.as_array().map(|all| all.iter().map(plain).collect::<Vec<_>>());
        row("audience", many.map_or_else(|| plain(audience), |many| many.join(", ")));
    }
    for (claim, name) in [("iat", "issued"), ("exp", "expires")] {
        if let Some(at) = claims.get(claim).and_then(moment) {
            row(name, format!("{}, {}", at.for_people(), at.relative(now)));
        }
    }
    for (claim, value) in claims {
        if !matches!(claim.as_str(), "sub" | "aud" | "iat" | "exp") {
            row(claim, plain(value));
        }
    }
    text
}

/// A NumericDate (RFC 7519 §2).
fn moment(value: &Value) -> Option<Moment> {
    let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(seconds).map(Moment)
}

/// A `google.protobuf.Struct` as JSON.
pub(super) fn to_json(claims: &Struct) -> Map<String, Value> {
    claims.fields.iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect()
}

fn value_to_json(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        // A NumericDate should look like one.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => json!(*n as i64),
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(yes)) => json!(yes),
        Some(Kind::StructValue(fields)) => Value::Object(to_json(fields)),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_to_json).collect(),
    }
}
