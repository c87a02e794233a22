//! What a failure means to whoever has to act on it.

/// The class of an error: its metric label, whether a retry can help, and the gRPC code it gets
/// unless the error names a more exact one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The request itself is wrong; repeating it changes nothing. `INVALID_ARGUMENT`.
    Invalid,
    /// Policy refuses it; repeating it changes nothing until policy does. `PERMISSION_DENIED`.
    Denied,
    /// Something that a person has to set up is missing. `FAILED_PRECONDITION`.
    NotReady,
    /// It can succeed later, once what is away or broken is back. `UNAVAILABLE`.
    Unavailable,
    /// The driver or its node is at fault. `INTERNAL`.
    Internal,
}

// === impl Class ===

impl Class {
    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotReady => "not_ready",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}
