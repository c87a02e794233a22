//! Why a trust domain, an ID or a template is refused.

use crate::class::Class;

/// Why a trust domain, an ID or a template is refused. Every one is the caller's input at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing between `spiffe://` and the path.
    #[error("the trust domain is empty; write it as in spiffe://example.org")]
    EmptyTrustDomain,
    /// SPIFFE-ID §2.3.
    #[error("the trust domain has {length} bytes; at most 255 are allowed")]
    TrustDomainTooLong {
        /// Bytes found.
        length: usize,
    },
    /// SPIFFE-ID §2.1.
    #[error(
        "the trust domain contains {found:?}; only lowercase letters, digits, '.', '-' and '_' are allowed (no port, user or percent-encoding)"
    )]
    TrustDomainCharacter {
        /// The first offending character.
        found: char,
    },
    /// SPIFFE-ID §2.
    #[error("a SPIFFE ID begins with \"spiffe://\", in lowercase")]
    Scheme,
    /// SPIFFE-ID §2.3.
    #[error("the SPIFFE ID has {length} bytes; at most 2048 are allowed")]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// A path that is given apart from its trust domain.
    #[error("a path begins with '/'")]
    RelativePath,
    /// SPIFFE-ID §2.2.
    #[error("the path ends in '/'; remove it")]
    TrailingSlash,
    /// SPIFFE-ID §2.2.
    #[error("the path has an empty segment; remove the doubled '/'")]
    EmptySegment,
    /// SPIFFE-ID §2.2.
    #[error("the path has a '.' or '..' segment; write the path without")]
    DotSegment,
    /// SPIFFE-ID §2.2.
    #[error(
        "the path contains {found:?}; only letters, digits, '.', '-' and '_' are allowed (no percent-encoding, query or fragment)"
    )]
    PathCharacter {
        /// The first offending character.
        found: char,
    },
    /// A `{` or `}` without its partner.
    #[error("the template has an unbalanced brace; a variable is written {{name}}")]
    UnbalancedBrace,
    /// A variable nobody knows.
    #[error("the template names an unknown variable {{{name}}}; did you mean {{{nearest}}}?")]
    UnknownVariable {
        /// As written.
        name: String,
        /// The closest known one.
        nearest: &'static str,
    },
    /// `{namespace-label:}` without a key.
    #[error("{{namespace-label:KEY}} needs the key of a namespace label")]
    EmptyLabelKey,
    /// The namespace has no such label.
    #[error("the namespace has no label {key:?}, which the ID template needs; set it")]
    MissingLabel {
        /// The label's key.
        key: String,
    },
    /// A value is never escaped: two pods could then end up with one name.
    #[error(
        "{{{variable}}} is {value:?}, which cannot be a path segment of a SPIFFE ID: only letters, digits, '.', '-' and '_' are allowed"
    )]
    Value {
        /// The variable.
        variable: String,
        /// What it stands for here.
        value: String,
    },
    /// The template of a claim is empty or too long.
    #[error("the template of a claim has {length} bytes; it has 1 to 256")]
    ClaimLength {
        /// Bytes found.
        length: usize,
    },
    /// The template of a claim has a control character.
    #[error("a template of a claim cannot contain {found:?}")]
    ClaimCharacter {
        /// The first offending character.
        found: char,
    },
    /// A template of a DNS name has something else than labels and variables.
    #[error(
        "a template of a DNS name cannot contain {found:?}; use a-z, 0-9, '-', '.' and variables such as {{namespace}}"
    )]
    DnsCharacter {
        /// The first offending character.
        found: char,
    },
    /// A template of a DNS name that makes no name.
    #[error("a template of a DNS name has 1 to 1024 bytes; this one has {length}")]
    DnsLength {
        /// Bytes found.
        length: usize,
    },
    /// A value that would be more than one label, or none.
    #[error(
        "{{{variable}}} is {value:?}, which cannot be a label of a DNS name: only a-z, 0-9 and inner hyphens are allowed"
    )]
    DnsValue {
        /// The variable.
        variable: String,
        /// What it stands for here.
        value: String,
    },
    /// The controller's own identities live there.
    #[error("paths under /svid.dev/ are reserved; choose another template")]
    Reserved,
}

// === impl IdError ===

impl IdError {
    /// Always [`Class::Invalid`].
    pub fn class(&self) -> Class {
        Class::Invalid
    }
}
