//! What a person wants done to the CA, and what became of it.

use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// What a person wants done, as the annotation [`CA_REQUEST`](crate::k8s::names::annotation) of the
/// bundle's ConfigMap has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Tells this request from every other.
    pub uid: String,
    /// What to do.
    pub action: Action,
    /// To which CA or JWT key, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Whether to do it though something may still need it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// When it was asked for.
    pub at: Moment,
}

/// What can be done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Make the next CA now and let it sign as soon as it is published for long enough.
    Rotate,
    /// The same for the key that signs JWT-SVIDs.
    RotateJwt,
    /// A key, of a CA or for JWT-SVIDs, is believed stolen: another signs as soon as can be, and what
    /// is under it is replaced.
    Taint,
    /// Take a CA or a JWT key out of the bundle.
    Retire,
    /// Make a new CA because the CA Secret is gone for good.
    ReplaceLost,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Which request it answers.
    pub uid: String,
    /// What was to be done.
    pub action: Action,
    /// How far it is.
    pub outcome: Outcome,
    /// For a person.
    pub message: String,
    /// When it came to that.
    pub at: Moment,
    /// The CA or JWT key that has to sign before it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Under way.
    Accepted,
    /// Finished.
    Done,
    /// Nothing was changed.
    Refused,
}

// === impl Outcome ===

impl Outcome {
    /// As a person reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

// === impl Action ===

impl Action {
    /// As a person types it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::RotateJwt => "rotate-jwt",
            Self::Taint => "taint",
            Self::Retire => "retire",
            Self::ReplaceLost => "replace-lost",
        }
    }
}
