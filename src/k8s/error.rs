//! Why the API server did not do what it was asked.

use std::{error::Error, time::Duration};

use crate::class::Class;

/// A failed call. Its message has what was tried and the server's own words, and never a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {doing}: {reason}")]
pub struct ApiError {
    doing: String,
    kind: ApiErrorKind,
    reason: String,
    retry_after: Option<Duration>,
}

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// No such object, or no such kind of object.
    NotFound,
    /// An object of that name is there.
    AlreadyExists,
    /// It was changed by someone else meanwhile.
    Conflict,
    /// RBAC or an admission policy refused.
    Forbidden,
    /// The server does not take the object as it is.
    Invalid,
    /// Too many requests.
    Throttled,
    /// No answer, or none of use: the server is away, starting or overloaded.
    Away,
    /// No access was configured, or not one that works.
    Setup,
}

// === impl ApiError ===

impl ApiError {
    pub(super) fn new(doing: &str, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::of(doing, ApiErrorKind::Away, reasons(error));
        };
        let kind = match (status.code, status.reason.as_str()) {
            (404 | 410, _) => ApiErrorKind::NotFound,
            (409, "AlreadyExists") => ApiErrorKind::AlreadyExists,
            (409, _) => ApiErrorKind::Conflict,
            (401 | 403, _) => ApiErrorKind::Forbidden,
            (429, _) => ApiErrorKind::Throttled,
            (400..=499, _) => ApiErrorKind::Invalid,
            _ => ApiErrorKind::Away,
        };
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let retry_after = match kind {
            // The server's own default.
            ApiErrorKind::Throttled => Some(Duration::from_secs(seconds.max(1).into())),
            _ => (seconds > 0).then(|| Duration::from_secs(seconds.into())),
        };
        let reason = match status.message.as_str() {
            "" => format!("the API server answered {}", status.code),
            message => message.to_owned(),
        };
        Self { retry_after, ..Self::of(doing, kind, reason) }
    }

    pub(super) fn setup(how: &str, error: &dyn Error) -> Self {
        let doing = format!("reach the Kubernetes API {how}");
        Self::of(&doing, ApiErrorKind::Setup, reasons(error))
    }

    /// The server has no objects of this kind any more.
    pub(super) fn gone(doing: &str, kind: &str) -> Self {
        let reason = format!("the API server has no {kind}");
        Self::of(doing, ApiErrorKind::NotFound, reason)
    }

    pub(super) fn silent(doing: &str, waited: Duration) -> Self {
        let reason = format!("the API server did not answer within {} s", waited.as_secs());
        Self::of(doing, ApiErrorKind::Away, reason)
    }

    fn of(doing: &str, kind: ApiErrorKind, reason: String) -> Self {
        Self { doing: doing.to_owned(), kind, reason, retry_after: None }
    }

    /// What it means.
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// What it means to a caller of ours.
    pub fn class(&self) -> Class {
        match self.kind {
            ApiErrorKind::Throttled | ApiErrorKind::Away | ApiErrorKind::Conflict => {
                Class::Unavailable
            }
            ApiErrorKind::NotFound | ApiErrorKind::Forbidden | ApiErrorKind::Setup => {
                Class::NotReady
            }
            ApiErrorKind::Invalid | ApiErrorKind::AlreadyExists => Class::Internal,
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// No such object, or no such kind of object.
    pub fn is_not_found(&self) -> bool {
        self.kind == ApiErrorKind::NotFound
    }

    /// An object of that name is there.
    pub fn is_already_exists(&self) -> bool {
        self.kind == ApiErrorKind::AlreadyExists
    }

    /// It was changed by someone else meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.kind == ApiErrorKind::Conflict
    }
}

/// An error and its causes on one line, each said once.
pub(super) fn reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::{Status, response::StatusDetails};

    use super::*;

    fn answer(code: u16, reason: &str, retry_after_seconds: u32) -> ApiError {
        let details = StatusDetails { retry_after_seconds, ..no_details() };
        let status = Status {
            code,
            reason: reason.to_owned(),
            message: "no".to_owned(),
            details: Some(details),
            ..Status::default()
        };
        ApiError::new("create the request", &kube::Error::Api(status.boxed()))
    }

    fn no_details() -> StatusDetails {
        serde_json::from_str("{}").unwrap()
    }

    #[test]
    fn each_answer_has_its_meaning() {
        for (code, reason, kind, class) in [
            (404, "NotFound", ApiErrorKind::NotFound, Class::NotReady),
            (409, "AlreadyExists", ApiErrorKind::AlreadyExists, Class::Internal),
            (409, "Conflict", ApiErrorKind::Conflict, Class::Unavailable),
            (403, "Forbidden", ApiErrorKind::Forbidden, Class::NotReady),
            (401, "Unauthorized", ApiErrorKind::Forbidden, Class::NotReady),
            (422, "Invalid", ApiErrorKind::Invalid, Class::Internal),
            (429, "TooManyRequests", ApiErrorKind::Throttled, Class::Unavailable),
            (500, "InternalError", ApiErrorKind::Away, Class::Unavailable),
            (503, "", ApiErrorKind::Away, Class::Unavailable),
            (504, "Timeout", ApiErrorKind::Away, Class::Unavailable),
        ] {
            let error = answer(code, reason, 0);
            assert_eq!((error.kind(), error.class()), (kind, class), "{code} {reason}");
            assert_eq!(error.to_string(), "cannot create the request: no");
        }
    }

    #[test]
    fn the_server_says_when() {
        assert_eq!(answer(429, "", 7).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(answer(429, "", 0).retry_after(), Some(Duration::from_secs(1)));
        assert_eq!(answer(503, "", 3).retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(answer(500, "", 0).retry_after(), None);
    }
}
