//! A mounter that only writes down what it was asked, for tests.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::errno::Errno;

use super::{
    mounter::{MountOutcome, Mounter, TmpfsOptions, fd_path},
    mountinfo::MountEntry,
};

/// One call to a [`RecordingMounter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MounterCall {
    /// [`Mounter::mount_tmpfs`].
    Mount {
        /// Where.
        target: PathBuf,
        /// With what.
        options: TmpfsOptions,
    },
    /// [`Mounter::unmount`].
    Unmount {
        /// Where.
        target: PathBuf,
    },
}

/// Mounts nothing, records every call, and answers [`Mounter::mounts`] from what it recorded.
#[derive(Debug, Default)]
pub struct RecordingMounter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<MounterCall>,
    mounts: Vec<MountEntry>,
    failures: VecDeque<i32>,
}

// === impl RecordingMounter ===

impl RecordingMounter {
    /// A recorder with nothing mounted.
    pub fn new() -> Self {
        Self::default()
    }

    /// The calls so far, failed ones included.
    pub fn calls(&self) -> Vec<MounterCall> {
        self.state().calls.clone()
    }

    /// Adds to what [`Mounter::mounts`] answers.
    pub fn add_mount(&self, entry: MountEntry) {
        self.state().mounts.push(entry);
    }

    /// Lets the next mount or unmount that has no failure yet fail with this `errno`.
    pub fn fail_next(&self, errno: i32) {
        self.state().failures.push_back(errno);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, call: MounterCall) -> io::Result<()> {
        self.calls.push(call);
        match self.failures.pop_front() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

impl Mounter for RecordingMounter {
    fn mount_tmpfs(
        &self,
        target: BorrowedFd<'_>,
        options: &TmpfsOptions,
    ) -> io::Result<MountOutcome> {
        let target = std::fs::read_link(fd_path(target))?;
        let mut state = self.state();
        state.record(MounterCall::Mount { target: target.clone(), options: options.clone() })?;
        state.mounts.push(MountEntry {
            mount_point: target,
            fs_type: "tmpfs".into(),
            source: options.source.clone(),
            options: "rw,nosuid,nodev,noexec".into(),
            super_options: "rw".into(),
        });
        Ok(MountOutcome { noswap: true, rootcontext: options.rootcontext.is_some() })
    }

    fn unmount(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let target = std::fs::read_link(fd_path(parent))?.join(name);
        let mut state = self.state();
        state.record(MounterCall::Unmount { target: target.clone() })?;
        match state.mounts.iter().rposition(|m| m.mount_point == target) {
            Some(index) => {
                state.mounts.remove(index);
                Ok(())
            }
            None => Err(Errno::EINVAL.into()),
        }
    }

    fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        Ok(self.state().mounts.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn records_and_answers_like_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        std::fs::create_dir(path.join("mount")).unwrap();
        let parent = std::fs::File::open(&path).unwrap();
        let target = std::fs::File::open(path.join("mount")).unwrap();
        let options = TmpfsOptions::new("csi.svid.dev");
        let mounter = RecordingMounter::new();

        mounter.fail_next(Errno::ENOMEM as i32);
        mounter.mount_tmpfs(target.as_fd(), &options).unwrap_err();
        assert!(mounter.mounts().unwrap().is_empty());

        mounter.mount_tmpfs(target.as_fd(), &options).unwrap();
        assert!(mounter.mounts().unwrap()[0].is_tmpfs_of("csi.svid.dev"));

        let name = OsStr::new("mount");
        mounter.unmount(parent.as_fd(), name).unwrap();
        mounter.unmount(parent.as_fd(), name).unwrap_err();
        assert_eq!(mounter.calls().len(), 4);
    }
}
