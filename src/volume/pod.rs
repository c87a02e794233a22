//! The pod that a volume belongs to, as kubelet says (`podInfoOnMount`).

use serde::{Deserialize, Serialize};

/// A pod's names, each of a form that Kubernetes allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", rename_all = "camelCase")]
pub struct PodInfo {
    /// A DNS-1123 label.
    pub namespace: String,
    /// A DNS-1123 subdomain.
    pub name: String,
    /// A UUID, or another token for a static pod.
    pub uid: String,
    /// A DNS-1123 subdomain.
    pub service_account: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unchecked {
    namespace: String,
    name: String,
    uid: String,
    service_account: String,
}

/// The reason why a name is refused.
pub(super) type Reason = &'static str;

// === impl PodInfo ===

impl TryFrom<Unchecked> for PodInfo {
    type Error = Reason;

    fn try_from(pod: Unchecked) -> Result<Self, Reason> {
        check_label(&pod.namespace)?;
        check_subdomain(&pod.name)?;
        check_uid(&pod.uid)?;
        check_subdomain(&pod.service_account)?;
        Ok(Self {
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
            service_account: pod.service_account,
        })
    }
}

/// `namespace/name`, as people write it.
impl std::fmt::Display for PodInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// RFC 1123 label: 1 to 63 lowercase letters, digits and inner hyphens.
pub(super) fn check_label(label: &str) -> Result<(), Reason> {
    let alphanumeric =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = label.as_bytes();
    let legal = bytes.len() <= 63
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|b| *b == b'-' || alphanumeric(Some(b)));
    legal.then_some(()).ok_or(
        "it must be a DNS-1123 label: up to 63 lowercase letters, digits and hyphens, \
         with a letter or digit at both ends",
    )
}

/// RFC 1123 subdomain as Kubernetes has it: 1 to 253 bytes, parts that are labels but for their
/// length, with dots between.
pub(super) fn check_subdomain(name: &str) -> Result<(), Reason> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let legal = name.len() <= 253 && name.split('.').all(part);
    legal.then_some(()).ok_or(
        "it must be a DNS-1123 subdomain: up to 253 lowercase letters, digits, hyphens and dots, \
         with a letter or digit at both ends of each part",
    )
}

/// What can be one part of kubelet's paths, as it must be.
pub(super) fn check_uid(uid: &str) -> Result<(), Reason> {
    let legal = (1..=128).contains(&uid.len())
        && uid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    legal
        .then_some(())
        .ok_or("it must be a pod UID: up to 128 letters, digits, hyphens and underscores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        let (l63, l64) = ("x".repeat(63), "x".repeat(64));
        let (l253, l254) = ("x".repeat(253), "x".repeat(254));
        for (name, label, subdomain) in [
            ("default", true, true),
            ("a", true, true),
            ("0", true, true),
            ("a-b", true, true),
            ("a.b", false, true),
            (l63.as_str(), true, true),
            (l64.as_str(), false, true),
            (l253.as_str(), false, true),
            (l254.as_str(), false, false),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            (".a", false, false),
            ("a.", false, false),
            ("a.-b", false, false),
            ("A", false, false),
            ("a_b", false, false),
            ("a/b", false, false),
            ("..", false, false),
            ("é", false, false),
            ("a\0", false, false),
        ] {
            assert_eq!(check_label(name).is_ok(), label, "{name:?}");
            assert_eq!(check_subdomain(name).is_ok(), subdomain, "{name:?}");
        }
    }

    #[test]
    fn uids() {
        for good in ["0b4f6a5e-52a9-4f3c-8b5a-0f3c2a3f7a11", "d41d8cd98f00b204", &"x".repeat(128)] {
            check_uid(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", &"x".repeat(129), "a\n"] {
            check_uid(bad).unwrap_err();
        }
    }

    #[test]
    fn a_record_cannot_bring_in_an_illegal_name() {
        let json = |ns: &str| {
            format!(r#"{{"namespace":"{ns}","name":"p","uid":"u","serviceAccount":"s"}}"#)
        };
        serde_json::from_str::<PodInfo>(&json("shop")).unwrap();
        serde_json::from_str::<PodInfo>(&json("../shop")).unwrap_err();
    }
}
