//! Why a pod is not given what it asked for at its socket.

use super::{NodeError, Refused};
use crate::{class::Class, jose::JwtError, volume::AudienceError};

/// What an answer means to a client (Workload Endpoint §6), for which it either stops, waits or
/// tries another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadFault {
    /// Asking the same again is no use.
    InvalidArgument,
    /// There is no identity for this pod, or not that one.
    PermissionDenied,
    /// It may work later.
    Unavailable,
    /// This driver, as it is set up, does not have it.
    Unimplemented,
}

/// Why a pod has no JWT-SVID, or one of its tokens is not good. The text is for the pod: it holds no
/// part of a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// No JWT-SVID is for nobody, or for a crowd.
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// Clients match this text: policy denies the identity, or another one was asked for.
    #[error("no identity issued")]
    NoIdentity,
    /// The volume has no SVID that says whose it is.
    #[error("the volume has no SVID yet")]
    NotYet,
    /// The token does not verify.
    #[error(transparent)]
    Token(#[from] JwtError),
    /// It asks for too much.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The signer makes none; it says what to set.
    #[error("{0}")]
    NoJwt(String),
    /// Nobody has said whom to trust yet.
    #[error("there is no trust bundle yet")]
    NoBundle,
    /// No signature was had.
    #[error("{0}")]
    NotSigned(String),
    /// The volume is being unpublished, or the driver ends.
    #[error("the volume is no longer served at this socket")]
    Closing,
}

// === impl WorkloadError ===

impl WorkloadError {
    /// What it means to the client.
    pub fn fault(&self) -> WorkloadFault {
        match self {
            Self::Audience(_) | Self::Token(_) => WorkloadFault::InvalidArgument,
            Self::NoIdentity => WorkloadFault::PermissionDenied,
            Self::NotYet
            | Self::Refused(_)
            | Self::NoBundle
            | Self::NotSigned(_)
            | Self::Closing => WorkloadFault::Unavailable,
            Self::NoJwt(_) => WorkloadFault::Unimplemented,
        }
    }

    /// What became of asking the signer. Whose fault it is matters to the pod only where it is
    /// policy's.
    pub(super) fn unsigned(error: &NodeError) -> Self {
        match error.class() {
            Class::Denied => Self::NoIdentity,
            _ => Self::NotSigned(error.to_string()),
        }
    }
}
