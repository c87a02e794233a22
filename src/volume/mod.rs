//! A volume: what a pod asks for, which files that makes, what is remembered about it.

pub mod duration;

mod attribute;
mod audience;
mod context;
mod id;
mod issuer_choice;
mod jwt_file;
mod layout;
mod ownership;
mod pod;
mod pod_token;
mod record;
mod socket;
mod spec;
mod timestamp;

pub use attribute::{PREFIX, SpecError};
pub use audience::{AudienceError, AudienceSet, MAX_AUDIENCE_BYTES, MAX_AUDIENCES};
pub use context::VolumeContext;
pub use id::{VolumeId, VolumeIdError};
pub use issuer_choice::IssuerChoice;
pub use jwt_file::JwtFile;
pub use layout::{FileNames, Layout};
pub use pod::PodInfo;
pub use pod_token::{PodToken, PodTokenError, TOKENS_KEY};
pub use record::{LastError, RECORD_FILE, RecordError, RecordState, Taint, VolumeRecord};
pub use spec::{Limits, VolumeSpec};
