//! DNS names in certificates (RFC 5280 §4.2.1.6, RFC 1123 §2.1).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::class::Class;

/// A host name in lower case: labels of letters, digits and hyphens. Never a wildcard, never what
/// could be read as an IP address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(Arc<str>);

/// Why a DNS name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsNameError {
    /// Empty, or longer than DNS allows.
    #[error("a DNS name has 1 to 253 characters; this one has {length}")]
    Length {
        /// In bytes.
        length: usize,
    },
    /// An asterisk anywhere.
    #[error("wildcards are not allowed; name each host")]
    Wildcard,
    /// Empty or too long, as in `a..b` or `a.`.
    #[error("each label between the dots has 1 to 63 characters")]
    LabelLength,
    /// Outside `a-z`, `0-9` and `-`.
    #[error("a DNS name cannot contain {found:?}; use a-z, 0-9 and -")]
    Character {
        /// The first of them.
        found: char,
    },
    /// `-a` or `a-`.
    #[error("a label cannot begin or end with a hyphen")]
    Hyphen,
    /// Its last label is a number, so that some read it as an IP address.
    #[error("the last label of a DNS name cannot be a number; an IP address is not a DNS name")]
    Address,
}

// === impl DnsName ===

impl DnsName {
    /// The longest name.
    pub const MAX_LENGTH: usize = 253;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = DnsNameError;

    fn from_str(name: &str) -> Result<Self, DnsNameError> {
        if name.is_empty() || name.len() > Self::MAX_LENGTH {
            return Err(DnsNameError::Length { length: name.len() });
        }
        if name.contains('*') {
            return Err(DnsNameError::Wildcard);
        }
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
        if let Some(found) = name.chars().find(|c| !allowed(*c)) {
            return Err(DnsNameError::Character { found });
        }
        let mut last = "";
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(DnsNameError::LabelLength);
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(DnsNameError::Hyphen);
            }
            last = label;
        }
        // `0x7f` too is an address to some resolvers (WHATWG URL, "ends in a number").
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if number(last) || last.strip_prefix("0x").is_some_and(hexadecimal) {
            return Err(DnsNameError::Address);
        }
        Ok(Self(name.into()))
    }
}

impl TryFrom<String> for DnsName {
    type Error = DnsNameError;

    fn try_from(name: String) -> Result<Self, DnsNameError> {
        name.parse()
    }
}

impl From<DnsName> for String {
    fn from(name: DnsName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsName({})", self.0)
    }
}

// === impl DnsNameError ===

impl DnsNameError {
    /// [`Class::Invalid`].
    pub fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_names_are_names() {
        let longest =
            [&"a".repeat(63), ".", &"b".repeat(63), ".", &"c".repeat(63), ".", &"d".repeat(61)];
        for good in [
            "a",
            "web.shop.svc",
            "web-0.x1.example.org",
            "1.a",
            "xn--bcher-kva.example",
            &longest.concat(),
        ] {
            assert_eq!(good.parse::<DnsName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long_label = format!("{}.org", "a".repeat(64));
        let long = "a.".repeat(127);
        for (bad, error) in [
            ("", DnsNameError::Length { length: 0 }),
            (long.as_str(), DnsNameError::Length { length: 254 }),
            ("*.example.org", DnsNameError::Wildcard),
            ("*", DnsNameError::Wildcard),
            ("a..b", DnsNameError::LabelLength),
            (".a", DnsNameError::LabelLength),
            ("a.", DnsNameError::LabelLength),
            (&long_label, DnsNameError::LabelLength),
            ("Web.shop", DnsNameError::Character { found: 'W' }),
            ("a_b", DnsNameError::Character { found: '_' }),
            ("a b", DnsNameError::Character { found: ' ' }),
            ("a\0", DnsNameError::Character { found: '\0' }),
            ("ä.org", DnsNameError::Character { found: 'ä' }),
            ("a,b", DnsNameError::Character { found: ',' }),
            ("-a.org", DnsNameError::Hyphen),
            ("a-.org", DnsNameError::Hyphen),
            ("10.0.0.1", DnsNameError::Address),
            ("1", DnsNameError::Address),
            ("a.0x7f", DnsNameError::Address),
            ("0x", DnsNameError::Address),
        ] {
            assert_eq!(bad.parse::<DnsName>(), Err(error), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_what_passes_is_plain(name in "[a-zA-Z0-9.*_-]{0,80}|.*") {
            if let Ok(parsed) = name.parse::<DnsName>() {
                prop_assert!(parsed.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
            }
        }
    }
}
