//! Which of cert-manager's issuers: a group, a kind and a name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The group of cert-manager's own issuers.
pub const CERT_MANAGER_GROUP: &str = "cert-manager.io";
/// Issuers that are in no namespace.
const CLUSTER_ISSUER: &str = "ClusterIssuer";

/// An issuer, written `Kind.group/name`, or `Kind/name` where the group is cert-manager's own. One
/// that is in a namespace is in that of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct IssuerRef {
    /// Such as `cert-manager.io`.
    pub group: String,
    /// Such as `ClusterIssuer`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Why it names no issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerRefError {
    /// Of another form.
    #[error("an issuer is written KIND/NAME or KIND.GROUP/NAME, as in ClusterIssuer/spiffe-ca")]
    Form,
    /// A part that no object could have.
    #[error(
        "the issuer's {part} must have 1 to 253 letters, digits, '-' or '.', as Kubernetes wants"
    )]
    Part {
        /// `name`, `kind` or `group`.
        part: &'static str,
    },
}

// === impl IssuerRef ===

impl IssuerRef {
    /// Checks its parts. Without a kind it is a ClusterIssuer, without a group cert-manager's own.
    pub fn new(
        name: &str,
        kind: Option<&str>,
        group: Option<&str>,
    ) -> Result<Self, IssuerRefError> {
        let (kind, group) = (kind.unwrap_or(CLUSTER_ISSUER), group.unwrap_or(CERT_MANAGER_GROUP));
        let ends = |text: &str| {
            let ends = [text.bytes().next(), text.bytes().last()];
            ends.iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        };
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let dns = |text: &str| text.bytes().all(|byte| lower(byte) || b"-.".contains(&byte));
        let alphanumeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        for (part, text, legal) in [
            ("name", name, dns(name)),
            ("kind", kind, alphanumeric(kind)),
            ("group", group, dns(group)),
        ] {
            if !legal || !ends(text) || text.len() > 253 {
                return Err(IssuerRefError::Part { part });
            }
        }
        let [group, kind, name] = [group, kind, name].map(str::to_owned);
        Ok(Self { group, kind, name })
    }
}

impl FromStr for IssuerRef {
    type Err = IssuerRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').ok_or(IssuerRefError::Form)?;
        match kind.split_once('.') {
            Some((kind, group)) => Self::new(name, Some(kind), Some(group)),
            None => Self::new(name, Some(kind), None),
        }
    }
}

impl fmt::Display for IssuerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            CERT_MANAGER_GROUP => write!(f, "{}/{}", self.kind, self.name),
            group => write!(f, "{}.{group}/{}", self.kind, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in
            ["ClusterIssuer/spiffe-ca", "Issuer/a.b", "AWSPCAIssuer.awspca.cert-manager.io/x"]
        {
            assert_eq!(text.parse::<IssuerRef>().unwrap().to_string(), text);
        }
        let own: IssuerRef = "Issuer.cert-manager.io/x".parse().unwrap();
        assert_eq!(own.to_string(), "Issuer/x");
        assert_eq!(IssuerRef::new("x", None, None).unwrap().to_string(), "ClusterIssuer/x");
    }

    #[test]
    fn what_no_object_is_called_is_refused() {
        let long = "x".repeat(254);
        for (text, part) in [
            ("x", None),
            ("", None),
            ("Issuer/", Some("name")),
            ("Issuer/a/b", Some("name")),
            ("Issuer/A", Some("name")),
            ("Issuer/-a", Some("name")),
            ("Issuer/a\nb", Some("name")),
            (&format!("Issuer/{long}"), Some("name")),
            ("/x", Some("kind")),
            ("Iss uer/x", Some("kind")),
            ("Issuer./x", Some("group")),
            ("Issuer.a..B/x", Some("group")),
        ] {
            let expected = match part {
                Some(part) => IssuerRefError::Part { part },
                None => IssuerRefError::Form,
            };
            assert_eq!(text.parse::<IssuerRef>(), Err(expected), "{text:?}");
        }
    }
}
