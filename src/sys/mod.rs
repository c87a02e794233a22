//! The operating system: mounts, descriptors, atomic sets of files, sockets, locks.
//!
//! The only user of `nix`. Everything that touches a volume goes through directory descriptors,
//! so that no symlink and no renamed directory can lead a write elsewhere.

pub mod lock;
pub mod namespace;
pub mod process;
pub mod selinux;
pub mod socket;

mod atomic_writer;
mod authority;
mod current_set;
mod file_set;
mod kubelet_dir;
mod mounter;
mod mountinfo;
mod recording_mounter;
mod regular_file;
mod target;
mod tree;
mod volume_dir;

pub use atomic_writer::AtomicWriter;
pub use authority::RewriteAuthority;
pub use current_set::CurrentSet;
pub use file_set::{FileSet, Ownership};
pub use kubelet_dir::{KubeletDir, TargetError, TargetPath};
pub use lock::DirLock;
pub use mounter::{LinuxMounter, MountOutcome, Mounter, TmpfsOptions};
pub use mountinfo::MountEntry;
pub use namespace::in_private_mount_namespace;
pub use recording_mounter::{MounterCall, RecordingMounter};
pub use regular_file::{RegularFile, read_bounded};
pub use target::Target;
pub use volume_dir::{Usage, VolumeDir};

/// The uid that this process acts as.
pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}
