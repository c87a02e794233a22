//! Why a token or a key is refused. No text here ever holds a part of a token or a key.

use super::JwtAlgorithm;
use crate::{class::Class, encoding::PemError};

/// Why a token is refused, or was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Beyond [`super::MAX_TOKEN`].
    #[error("the token has {length} bytes; {} is the most", super::MAX_TOKEN)]
    TooLong {
        /// Of the token.
        length: usize,
    },
    /// JWT-SVID §5.1.
    #[error("the token is not a JWS in compact serialization: three parts with dots between them")]
    NotCompact,
    /// A part is damaged.
    #[error("the token's {part} is not base64url without padding")]
    Base64 {
        /// `header`, `claims` or `signature`.
        part: &'static str,
    },
    /// A part is no JSON object, or one that two readers could read differently.
    #[error("the token's {part} is not a JSON object that can be accepted: {problem}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// JWT-SVID §2.
    #[error("the token's header has a member other than alg, kid and typ")]
    Header,
    /// JWT-SVID §2.1.
    #[error(
        "the token's alg is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512"
    )]
    Algorithm,
    /// JWT-SVID §2.2.
    #[error("the token's kid is not a string, or empty")]
    KeyId,
    /// JWT-SVID §2.3.
    #[error("the token's typ is neither JWT nor JOSE")]
    Type,
    /// JWT-SVID §3.1.
    #[error("the token's sub is not a SPIFFE ID")]
    Subject,
    /// JWT-SVID §3.2.
    #[error("the token's aud is not a string or a list of at least one string")]
    Audience,
    /// JWT-SVID §3.2.
    #[error("the token is for another audience")]
    WrongAudience,
    /// JWT-SVID §3.3.
    #[error("the token has no exp")]
    NoExpiry,
    /// RFC 7519 §2.
    #[error("the token's {claim} is not a time in seconds since 1970")]
    Time {
        /// `exp`, `nbf` or `iat`.
        claim: &'static str,
    },
    /// JWT-SVID §3.3.
    #[error("the token has expired")]
    Expired,
    /// RFC 7519 §4.1.5.
    #[error("the token is not valid yet")]
    NotYet,
    /// RFC 7519 §4.1.6.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// Workload API §6.3.
    #[error("there is no bundle of the token's trust domain, {trust_domain}")]
    NoBundle {
        /// Of `sub`, shortened.
        trust_domain: String,
    },
    /// No such key.
    #[error("the token's kid is none of the JWT authorities of {trust_domain}")]
    UnknownKey {
        /// Of `sub`.
        trust_domain: String,
    },
    /// The authority of that kid is of another kind.
    #[error("the token's alg {algorithm} does not fit the key that its kid names")]
    KeyMismatch {
        /// Of the token.
        algorithm: JwtAlgorithm,
    },
    /// It was changed, or signed by somebody else.
    #[error("the token's signature is wrong")]
    Signature,
    /// Nothing to say it to.
    #[error("a JWT-SVID needs at least one audience, and none may be empty")]
    NoAudience,
    /// A JWT-SVID that lives no time.
    #[error("a JWT-SVID must expire after it is issued, and both after 1970")]
    Lifetime,
    /// The crypto library failed.
    #[error("the token could not be signed: the crypto library failed")]
    Sign,
    /// The machine's random source failed.
    #[error("cannot get random bytes from the operating system")]
    Random,
}

/// Why a private key can't be used or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    /// No such algorithm.
    #[error("unknown JWT key algorithm {given:?}; use rs256, es256 or es384")]
    UnknownAlgorithm {
        /// As written, shortened.
        given: String,
    },
    /// The text is no PEM, or encrypted.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// No private key in it.
    #[error("no private key found; the file needs one PEM block PRIVATE KEY (PKCS#8)")]
    NoKey,
    /// Which one is meant?
    #[error("more than one private key found; keep the one that signs")]
    SeveralKeys,
    /// Damaged, or of another kind.
    #[error(
        "the private key cannot sign JWT-SVIDs: it is damaged, or not RSA of 2048 to 8192 bits, \
         ECDSA P-256 or P-384, as PKCS#8; `openssl genpkey -algorithm RSA -pkeyopt \
         rsa_keygen_bits:2048` makes one"
    )]
    Unusable,
    /// The crypto library failed.
    #[error("cannot generate a JWT key: the crypto library failed")]
    Generate,
}

/// Why a JWK is no JWT authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Of a type, curve, size or algorithm that JWT-SVIDs are not signed with: readers ignore it
    /// (Bundle §4.2).
    #[error("no key that JWT-SVIDs are signed with")]
    Unsupported,
    /// JWT-SVID §6.1.
    #[error("it has no kid")]
    NoKeyId,
    /// RFC 7518 §6.
    #[error("its {member} is missing or damaged")]
    Member {
        /// Of the JWK.
        member: &'static str,
    },
}

// === impl JwtError ===

impl JwtError {
    /// [`Class::Internal`] where the crypto library or the machine failed, else
    /// [`Class::Invalid`].
    pub fn class(&self) -> Class {
        match self {
            Self::Sign | Self::Random => Class::Internal,
            _ => Class::Invalid,
        }
    }
}
