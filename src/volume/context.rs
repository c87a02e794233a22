//! The `volume_context` of a publish request, without its secrets.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::pod_token::TOKENS_KEY;

/// Pod info and attributes exactly as requested. Two requests with equal contexts ask for the
/// same; tokens differ each time, are secret, and are left out on every way in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct VolumeContext(BTreeMap<String, String>);

// === impl VolumeContext ===

impl VolumeContext {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for VolumeContext {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().filter(|(key, _)| key != TOKENS_KEY).collect())
    }
}

impl From<HashMap<String, String>> for VolumeContext {
    fn from(map: HashMap<String, String>) -> Self {
        map.into_iter().collect()
    }
}

impl From<BTreeMap<String, String>> for VolumeContext {
    fn from(map: BTreeMap<String, String>) -> Self {
        map.into_iter().collect()
    }
}

impl From<VolumeContext> for BTreeMap<String, String> {
    fn from(context: VolumeContext) -> Self {
        context.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_get_in_on_no_way() {
        // Invariant 1, and the idempotency of republish.
        let with = |token: &str| {
            VolumeContext::from(HashMap::from([
                (TOKENS_KEY.to_owned(), token.to_owned()),
                ("a".to_owned(), "b".to_owned()),
            ]))
        };
        assert_eq!(with("secret-1"), with("secret-2"));
        assert!(!format!("{:?}", with("secret")).contains("secret"));
        assert!(!serde_json::to_string(&with("secret")).unwrap().contains("secret"));
        let read: VolumeContext =
            serde_json::from_str(&format!(r#"{{"{TOKENS_KEY}":"secret","a":"b"}}"#)).unwrap();
        assert_eq!(read, with("x"));
    }
}
