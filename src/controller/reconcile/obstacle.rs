//! What keeps a request from being handled, and when it is tried again.

use std::time::Duration;

use tracing::{debug, error, warn};

use crate::{
    controller::{issuance::IssuanceError, metrics::Metrics},
    k8s::ApiError,
};

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It has its certificate or its refusal.
    Finished,
    /// There is another version of it, which the watch will tell, or it is gone.
    Outdated,
    /// Not now; after this wait, where one was named.
    Again(Option<Duration>),
}

/// Why a request could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The API server did not do its part.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nothing was signed or decided.
    #[error(transparent)]
    Issuance(#[from] IssuanceError),
    /// Something that was said elsewhere once.
    #[error("{0}")]
    Waits(String),
}

// === impl Handled ===

impl Handled {
    /// After a request (its name) was handled, or not.
    pub fn after(result: Result<(), Obstacle>, request: &str, metrics: &Metrics) -> Self {
        match result {
            Ok(()) => Self::Finished,
            Err(obstacle) => obstacle.explain(request, metrics),
        }
    }
}

// === impl Obstacle ===

impl Obstacle {
    fn explain(self, request: &str, metrics: &Metrics) -> Handled {
        match self {
            // Another replica was quicker, or somebody changed it: start over with what there is.
            Self::Api(error) if error.is_conflict() || error.is_not_found() => {
                debug!(request, %error, "the request has changed");
                Handled::Outdated
            }
            Self::Api(error) => {
                metrics.api_failed(&error);
                warn!(request, %error, "the request waits");
                Handled::Again(error.retry_after())
            }
            Self::Issuance(IssuanceError::NotReady(_)) | Self::Waits(_) => {
                debug!(request, reason = %self, "the request waits");
                Handled::Again(None)
            }
            Self::Issuance(error) => {
                error!(request, %error, "the request waits");
                Handled::Again(None)
            }
        }
    }
}
