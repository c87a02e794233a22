//! A volume: what a pod asks for, which files that makes, what is remembered about it.

pub mod duration;

mod attribute;
mod context;
mod id;
mod layout;
mod ownership;
mod pod;
mod record;
mod spec;
mod timestamp;

pub use attribute::{PREFIX, SpecError};
pub use context::VolumeContext;
pub use id::{VolumeId, VolumeIdError};
pub use layout::{FileNames, Layout};
pub use pod::PodInfo;
pub use record::{LastError, RECORD_FILE, RecordError, RecordState, Taint, VolumeRecord};
pub use spec::{Limits, VolumeSpec};
