//! From why nothing was decided to the gRPC status.

use tonic::Status;

use crate::{
    class::Class,
    controller::{issuance::IssuanceError, tokens::TokenError},
    k8s::ApiError,
};

/// For a token that is no good, or cannot be verified now; `whose` is it?
pub(super) fn of_token(whose: &str, error: &TokenError) -> Status {
    let message = format!("{whose}: {error}");
    match error.class() {
        Class::Unavailable => Status::unavailable(message),
        _ => Status::unauthenticated(message),
    }
}

/// For what could not be read.
pub(super) fn of_api(error: &ApiError) -> Status {
    Status::unavailable(format!("nothing can be decided now: {error}"))
}

/// For what could not be signed or written down.
pub(super) fn of_issuance(error: &IssuanceError) -> Status {
    Status::unavailable(error.to_string())
}
