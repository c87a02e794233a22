//! From what the node refuses to the gRPC status that makes clients do the right thing
//! (Workload Endpoint §6).

use tonic::{Code, Status};

use crate::node::{WorkloadError, WorkloadFault};

pub(super) fn of(error: WorkloadError) -> Status {
    let code = match error.fault() {
        WorkloadFault::InvalidArgument => Code::InvalidArgument,
        WorkloadFault::PermissionDenied => Code::PermissionDenied,
        WorkloadFault::Unavailable => Code::Unavailable,
        WorkloadFault::Unimplemented => Code::Unimplemented,
    };
    Status::new(code, error.to_string())
}
