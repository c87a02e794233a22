//! Why a call to the node failed.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    class::Class,
    id::IdError,
    jose::JwtError,
    pki::{CsrError, PkiError, SvidError},
    signer::SignError,
    sys::TargetError,
    volume::{PodTokenError, SpecError, VolumeId},
};

/// How often a renewal that waits for a token looks whether it has to go on waiting.
const TOKEN_LOOK: Duration = Duration::from_secs(60);

/// Why a publish, unpublish, stats call or renewal failed; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The volume's attributes or pod info can't be served.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The target path isn't one of kubelet's.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The pod's names make no SPIFFE ID.
    #[error(transparent)]
    Identity(#[from] IdError),
    /// The same volume is published with another request.
    #[error(
        "volume {0} is published already with other attributes; they can't change while it is \
         mounted"
    )]
    Changed(VolumeId),
    /// The same volume is published at another target.
    #[error("volume {volume} is published at {other}; unpublish it there first")]
    Elsewhere {
        /// The volume.
        volume: VolumeId,
        /// Where it is.
        other: PathBuf,
    },
    /// Another volume is published at this target.
    #[error("{target} belongs to volume {other}; unpublish that one first")]
    Taken {
        /// The target.
        target: PathBuf,
        /// Whose it is.
        other: VolumeId,
    },
    /// The target lies in another pod's directory.
    #[error("{target} is not a path of the pod with the UID {uid}")]
    OtherPod {
        /// The target.
        target: PathBuf,
        /// The UID that the pod info names.
        uid: String,
    },
    /// Something that isn't ours is mounted there.
    #[error("{0} is mounted already and not by this driver; unmount it to go on")]
    Foreign(PathBuf),
    /// A live volume's mount is gone or covered.
    #[error("the volume's mount on {0} is gone or something else is mounted over it")]
    Displaced(PathBuf),
    /// The directory that kubelet makes for the volume is missing.
    #[error("{0} does not exist; kubelet makes it before it calls the driver")]
    NoParent(PathBuf),
    /// No such volume here.
    #[error("no volume {volume} is published at {target}")]
    Unknown {
        /// The volume asked for.
        volume: VolumeId,
        /// Where it was said to be.
        target: String,
    },
    /// An unpublish took over.
    #[error("volume {0} is being unpublished")]
    Unpublishing(VolumeId),
    /// The process ends.
    #[error("the driver is shutting down; its next start goes on")]
    ShuttingDown,
    /// No SVID was had.
    #[error("no SVID: {0}")]
    Sign(#[from] SignError),
    /// The signer needs the pod's own token, and there is none.
    #[error("no SVID: {0}")]
    NoPodToken(#[source] PodTokenError),
    /// The signer did not answer in time.
    #[error("no SVID: the signer did not answer within {0} s")]
    SignTimeout(u64),
    /// The signer stayed away for as long as a publish waits.
    #[error("no SVID: {error} (tried for {seconds} s)")]
    SignerAway {
        /// What the last try came to.
        error: SignError,
        /// For how long.
        seconds: u64,
    },
    /// The signer signed before anyone knew whom to trust.
    #[error(
        "no SVID: there is no trust bundle to verify it by yet; the svid-csi controller publishes \
         one once it has a CA"
    )]
    NoBundle,
    /// What was signed is not valid for long.
    #[error(
        "no SVID: its certificate is valid only in {seconds} s, so the clocks of this node and of \
         the signer differ by that much or more; set them right"
    )]
    ClockBehind {
        /// Until it is.
        seconds: u64,
    },
    /// Whoever signed is ahead of the bundle that this node takes.
    #[error(
        "the signer's answer was refused: {error}; the published bundle is not taken: {refusal}"
    )]
    Behind {
        /// What the answer fails by.
        error: SvidError,
        /// Why the bundle stays as it is.
        refusal: String,
    },
    /// What was signed isn't what was asked for.
    #[error("the signer's answer was refused: {0}")]
    Refused(#[from] SvidError),
    /// What was signed isn't the JWT-SVID that was asked for.
    #[error("the signer's JWT-SVID was refused: {0}")]
    RefusedJwt(#[from] JwtError),
    /// The volume asks for files that nobody here can write.
    #[error("the volume asks for JWT-SVIDs (csi.svid.dev/jwt), and there are none here: {0}")]
    NoJwt(#[source] SignError),
    /// A key or request could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A request could not be made.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The operating system refused.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A failed publish could not be undone.
    #[error("{error}; and what was begun could not be undone: {left}")]
    LeftBehind {
        /// Why the publish failed.
        error: Box<NodeError>,
        /// What could not be undone.
        left: Box<NodeError>,
    },
    /// A bug: a task of ours panicked.
    #[error("the driver failed inside; see its log")]
    Panicked,
}

// === impl NodeError ===

impl NodeError {
    /// What it means to the caller.
    pub fn class(&self) -> Class {
        match self {
            Self::Spec(_) | Self::Target(_) | Self::Identity(_) | Self::OtherPod { .. } => {
                Class::Invalid
            }
            Self::Changed(_)
            | Self::Elsewhere { .. }
            | Self::Taken { .. }
            | Self::Foreign(_)
            | Self::Displaced(_)
            | Self::NoParent(_)
            | Self::Unknown { .. } => Class::NotReady,
            Self::LeftBehind { .. }
            | Self::Unpublishing(_)
            | Self::ShuttingDown
            | Self::SignTimeout(_)
            | Self::SignerAway { .. }
            | Self::ClockBehind { .. }
            | Self::NoBundle => Class::Unavailable,
            Self::Sign(error) | Self::NoJwt(error) => error.class(),
            Self::NoPodToken(error) => error.class(),
            // Whoever signed may be ahead of the bundle that this node has heard of.
            Self::Refused(error) | Self::Behind { error, .. } => error.class(),
            // The key may be newer than the bundle here.
            Self::RefusedJwt(JwtError::UnknownKey { .. }) => Class::Unavailable,
            Self::RefusedJwt(_) => Class::Internal,
            Self::Pki(_) | Self::Csr(_) | Self::Io { .. } | Self::Panicked => Class::Internal,
        }
    }

    /// How long to wait before the next try, where the signer said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Sign(error) => error.retry_after(),
            // kubelet's next visit ends the wait; this is for where it never comes.
            Self::NoPodToken(_) => Some(TOKEN_LOOK),
            _ => None,
        }
    }

    /// Whether another token of the pod is what is missing.
    pub(super) fn wants_pod_token(&self) -> bool {
        match self {
            Self::NoPodToken(_) => true,
            Self::Sign(error) => error.wants_pod_token(),
            _ => false,
        }
    }

    /// Why nothing was signed, where the signer only says that it had no token of the pod.
    pub(super) fn with_reason(self, token: Result<(), PodTokenError>) -> Self {
        match (self, token) {
            (Self::Sign(error), Err(reason)) if error.wants_pod_token() => Self::NoPodToken(reason),
            (error, _) => error,
        }
    }

    /// Whether kubelet may never call again, so that nothing may be left behind. After the
    /// others it retries, or unpublishes.
    pub(super) fn is_final(&self) -> bool {
        self.class() != Class::Unavailable
    }

    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.into(), source }
    }
}
