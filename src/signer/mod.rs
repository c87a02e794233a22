//! Who signs: the seam between a volume that needs an SVID and a CA that makes one.

pub mod local;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::{
    class::Class,
    id::SpiffeId,
    pki::{Csr, X509Svid},
    volume::{PodInfo, VolumeId},
};

/// Has X.509-SVIDs signed.
#[async_trait]
pub trait Signer: Send + Sync + 'static {
    /// Signs one request. The caller verifies everything about the answer.
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError>;

    /// Whether a request could be signed now, and until when the signing CA lives.
    fn status(&self) -> SignerStatus;
}

/// What a volume asks for. It holds no secret.
#[derive(Debug)]
pub struct SignRequest {
    /// The volume that the SVID is for.
    pub volume: VolumeId,
    /// The pod that the volume belongs to.
    pub pod: PodInfo,
    /// The identity to be certified.
    pub id: SpiffeId,
    /// The lifetime wished for; the signer may give less.
    pub ttl: Duration,
    /// The public key, with proof that the asker holds the private one.
    pub csr: Csr,
}

/// How a signer is doing.
#[derive(Debug)]
pub struct SignerStatus {
    /// `Err` says why nothing can be signed now.
    pub ready: Result<(), SignError>,
    /// When the first certificate of the signing chain ends, where it is known.
    pub ca_not_after: Option<SystemTime>,
}

/// Why nothing was signed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SignError {
    class: Class,
    message: String,
    retry_after: Option<Duration>,
}

// === impl SignError ===

impl SignError {
    /// An error of this class; `message` tells a person what to do.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), retry_after: None }
    }

    /// The same, where it is known when the signer signs again: nobody waits much longer.
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// What it means to the caller.
    pub fn class(&self) -> Class {
        self.class
    }

    /// How long to wait before the next try, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
