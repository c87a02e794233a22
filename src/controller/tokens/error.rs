//! Why a token is refused. No text here ever holds a part of a token.

use crate::{class::Class, jose::JwtError, k8s::ApiError};

/// Why a token is refused, or cannot be verified now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// No JWS that could be one of the API server's.
    #[error(transparent)]
    Form(#[from] JwtError),
    /// The API server names the key of each of its tokens.
    #[error("the token names no key (kid)")]
    NoKeyId,
    /// For others too, or not for us.
    #[error("the token must be for the audience {wanted} and for no other")]
    Audience {
        /// The one that it must be for.
        wanted: String,
    },
    /// It would never end.
    #[error("the token has no exp")]
    NoExpiry,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time is yet to come.
    #[error("the token is not valid yet; check the clocks of API server and controller")]
    NotYet,
    /// Not a token of a pod on a node.
    #[error(transparent)]
    Unbound(#[from] Unbound),
    /// The API server does not publish its key.
    #[error("the token's key (kid) is none that the API server publishes")]
    UnknownKey,
    /// The same, but the API server was asked too short a time ago to be asked again.
    #[error(
        "the token's key (kid) is none that the API server published a moment ago; try again soon"
    )]
    KeyNotSeenYet,
    /// The key of its `kid` is of another kind than its `alg`.
    #[error("the token's alg does not fit the key that its kid names")]
    KeyMismatch,
    /// It was changed, or signed by somebody else.
    #[error("the token's signature is wrong")]
    Signature,
    /// TokenReview says no.
    #[error("the API server does not take the token")]
    Refused,
    /// TokenReview says yes to something else than the token says.
    #[error("the API server takes the token for another one than it says it is")]
    Contradiction,
    /// Too many are being asked about.
    #[error("too many tokens are being reviewed by the API server; try again soon")]
    Busy,
    /// The API server cannot be asked.
    #[error("the token cannot be verified now: {0}")]
    Api(#[from] ApiError),
}

/// What a token is not bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbound {
    /// Somebody else's.
    #[error("the token is no bound ServiceAccount token")]
    NotAServiceAccount,
    /// Made by hand, or of before 1.21.
    #[error(
        "the token is bound to no pod; only a projected token is, or one that kubelet asked for"
    )]
    Pod,
    /// Made before 1.30.
    #[error("the token is bound to no node; Kubernetes 1.30 or later does that")]
    Node,
}

// === impl TokenError ===

impl TokenError {
    /// [`Class::Invalid`] for a token that will never be good, else [`Class::Unavailable`].
    pub fn class(&self) -> Class {
        match self {
            Self::KeyNotSeenYet | Self::Busy | Self::Api(_) => Class::Unavailable,
            _ => Class::Invalid,
        }
    }
}
