//! A SPIFFE ID (SPIFFE-ID §2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{IdError, TrustDomain};

/// A SPIFFE ID, `spiffe://<trust-domain>[/<path>]`, of 2048 bytes at most. Compared byte by byte.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

const SCHEME: &str = "spiffe://";

// === impl SpiffeId ===

impl SpiffeId {
    /// Most bytes of an ID. The standard asks readers to take this many and issuers to mint no more
    /// (SPIFFE-ID §2.3); we do neither.
    pub const MAX_LENGTH: usize = 2048;

    /// The ID of `path` in `trust_domain`. `path` is empty or begins with `/`.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        check_path(path)?;
        let length = SCHEME.len() + trust_domain.as_str().len() + path.len();
        if length > Self::MAX_LENGTH {
            return Err(IdError::TooLong { length });
        }
        Ok(Self {
            text: format!("{SCHEME}{trust_domain}{path}").into(),
            trust_domain: trust_domain.clone(),
        })
    }

    /// The ID of a trust domain itself: no path.
    pub(super) fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        Self { text: format!("{SCHEME}{trust_domain}").into(), trust_domain: trust_domain.clone() }
    }

    /// The controller's own ID: `/svid.dev/controller`.
    pub fn controller(trust_domain: &TrustDomain) -> Self {
        let text = format!("{SCHEME}{trust_domain}/svid.dev/controller").into();
        Self { text, trust_domain: trust_domain.clone() }
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash; empty for the ID of a trust domain.
    pub fn path(&self) -> &str {
        self.text.get(SCHEME.len() + self.trust_domain.as_str().len()..).unwrap_or_default()
    }

    /// Whether it names a workload: it has a path.
    pub fn is_workload(&self) -> bool {
        !self.path().is_empty()
    }

    /// Whether it is kept for the controller: no pod ever has it.
    pub fn is_reserved(&self) -> bool {
        is_reserved(self.path())
    }
}

/// The controller's own ID and whatever it may need later.
pub(super) fn is_reserved(path: &str) -> bool {
    let rest = path.strip_prefix("/svid.dev");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// SPIFFE-ID §2.2. The empty path is legal.
pub(super) fn check_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() {
        return Ok(());
    }
    let Some(segments) = path.strip_prefix('/') else {
        return Err(IdError::RelativePath);
    };
    if path.ends_with('/') {
        return Err(IdError::TrailingSlash);
    }
    segments.split('/').try_for_each(check_segment)
}

/// One path segment: `[a-zA-Z0-9.-_]+`, neither `.` nor `..`.
pub(super) fn check_segment(segment: &str) -> Result<(), IdError> {
    if let Some(found) =
        segment.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
    {
        return Err(IdError::PathCharacter { found });
    }
    match segment {
        "" => Err(IdError::EmptySegment),
        "." | ".." => Err(IdError::DotSegment),
        _ => Ok(()),
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > Self::MAX_LENGTH {
            return Err(IdError::TooLong { length: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain: TrustDomain = name.parse()?;
        check_path(path)?;
        Ok(Self { text: text.into(), trust_domain })
    }
}

impl TryFrom<&str> for SpiffeId {
    type Error = IdError;

    fn try_from(text: &str) -> Result<Self, IdError> {
        text.parse()
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SpiffeId, IdError> {
        text.parse()
    }

    #[test]
    fn must_01_scheme_is_spiffe_without_query_or_fragment() {
        let id = parse("spiffe://example.org/ns/a/sa/b").unwrap();
        assert_eq!(id.trust_domain().as_str(), "example.org");
        assert_eq!(id.path(), "/ns/a/sa/b");
        assert!(id.is_workload());
        assert_eq!(id.to_string(), "spiffe://example.org/ns/a/sa/b");

        let root = parse("spiffe://example.org").unwrap();
        assert_eq!(root.path(), "");
        assert!(!root.is_workload());
        assert_eq!(root, root.trust_domain().id());

        for bad in ["", "spiffe", "spiffe:", "spiffe:/", "http://a/b", "//a/b"] {
            assert_eq!(parse(bad), Err(IdError::Scheme), "{bad}");
        }
        for bad in ["SPIFFE://a/b", "Spiffe://a/b", " spiffe://a/b", "example.org"] {
            assert_eq!(parse(bad), Err(IdError::Scheme), "{bad}");
        }
        assert_eq!(parse("spiffe://a/b?c=d"), Err(IdError::PathCharacter { found: '?' }));
        assert_eq!(parse("spiffe://a/b#c"), Err(IdError::PathCharacter { found: '#' }));
        assert_eq!(parse("spiffe://a?b"), Err(IdError::TrustDomainCharacter { found: '?' }));
    }

    #[test]
    fn must_02_authority_is_only_the_trust_domain() {
        assert_eq!(parse("spiffe://"), Err(IdError::EmptyTrustDomain));
        assert_eq!(parse("spiffe:///path"), Err(IdError::EmptyTrustDomain));
        for (bad, found) in [
            ("spiffe://user@a/b", '@'),
            ("spiffe://a:1/b", ':'),
            ("spiffe://%61/b", '%'),
            ("spiffe://A/b", 'A'),
        ] {
            assert_eq!(parse(bad), Err(IdError::TrustDomainCharacter { found }));
        }
    }

    #[test]
    fn must_03_path_has_plain_segments_only() {
        for good in ["/a", "/A/b.c-d_e/0", "/...", "/.a", "/a.", "/..a"] {
            let id = parse(&format!("spiffe://td{good}")).unwrap();
            assert_eq!(id.path(), good);
        }
        for (bad, error) in [
            ("/", IdError::TrailingSlash),
            ("/a/", IdError::TrailingSlash),
            ("//", IdError::TrailingSlash),
            ("//a", IdError::EmptySegment),
            ("/a//b", IdError::EmptySegment),
            ("/.", IdError::DotSegment),
            ("/..", IdError::DotSegment),
            ("/a/./b", IdError::DotSegment),
            ("/a/../b", IdError::DotSegment),
            ("/%61", IdError::PathCharacter { found: '%' }),
            ("/a:b", IdError::PathCharacter { found: ':' }),
            ("/ä", IdError::PathCharacter { found: 'ä' }),
            ("/a b", IdError::PathCharacter { found: ' ' }),
            ("/a\\b", IdError::PathCharacter { found: '\\' }),
            ("/a\0", IdError::PathCharacter { found: '\0' }),
        ] {
            assert_eq!(parse(&format!("spiffe://td{bad}")), Err(error), "{bad}");
        }
        let td: TrustDomain = "td".parse().unwrap();
        assert_eq!(SpiffeId::new(&td, "a"), Err(IdError::RelativePath));
        assert_eq!(SpiffeId::new(&td, "").unwrap(), td.id());
    }

    #[test]
    fn must_04_ids_of_2048_bytes_are_read_and_longer_ones_never_minted() {
        let td: TrustDomain = "td".parse().unwrap();
        let path = format!("/{}", "a".repeat(2048 - "spiffe://td/".len()));
        let id = SpiffeId::new(&td, &path).unwrap();
        assert_eq!(id.as_str().len(), 2048);
        assert_eq!(parse(id.as_str()).unwrap(), id);

        let longer = format!("{path}a");
        assert_eq!(SpiffeId::new(&td, &longer), Err(IdError::TooLong { length: 2049 }));
        assert!(parse(&format!("spiffe://td{longer}")).is_err());
    }

    #[test]
    fn serde_validates() {
        let id: SpiffeId = serde_json::from_str("\"spiffe://a/b\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"spiffe://a/b\"");
        assert!(serde_json::from_str::<SpiffeId>("\"spiffe://a/\"").is_err());
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_itself_and_is_made_of_its_parts(text in "(spiffe://)?[a-zA-Z0-9./_%?#:-]{0,40}") {
            if let Ok(id) = parse(&text) {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(SpiffeId::new(id.trust_domain(), id.path()).unwrap(), id);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            drop(parse(&text));
            drop(parse(&format!("spiffe://{text}")));
            drop(parse(&format!("spiffe://td/{text}")));
        }

        #[test]
        fn legal_parts_always_parse(td in "[a-z0-9._-]{1,60}", segments in prop::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", 0..6)) {
            let path: String = segments.iter().map(|s| format!("/{s}")).collect();
            let id = parse(&format!("spiffe://{td}{path}")).unwrap();
            prop_assert_eq!(id.trust_domain().as_str(), td);
            prop_assert_eq!(id.path(), path);
        }
    }
}
