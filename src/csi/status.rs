//! From a node's error to the gRPC status that makes kubelet do the right thing.

use tonic::{Code, Status};

use crate::{class::Class, node::NodeError};

/// The gRPC code that a class has by default.
fn code_of(class: Class) -> Code {
    match class {
        Class::Invalid => Code::InvalidArgument,
        Class::Denied => Code::PermissionDenied,
        Class::NotReady => Code::FailedPrecondition,
        Class::Unavailable => Code::Unavailable,
        Class::Internal => Code::Internal,
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::Changed(_) | NodeError::Taken { .. } => Code::AlreadyExists,
            NodeError::Unknown { .. } => Code::NotFound,
            NodeError::Unpublishing(_) => Code::Aborted,
            other => code_of(other.class()),
        };
        Self::new(code, error.to_string())
    }
}
