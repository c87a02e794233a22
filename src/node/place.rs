//! The mount under a target: made, found again, and taken away.

use std::{io, os::fd::AsFd};

use tracing::warn;

use super::{NodeError, RecordKey};
use crate::sys::{
    AtomicWriter, KubeletDir, MountEntry, Mounter, Ownership, Target, TargetPath, TmpfsOptions,
    VolumeDir,
};

/// Where volumes are mounted, and how a mount of ours is known.
pub(super) struct Places {
    pub(super) driver_name: String,
    pub(super) kubelet: KubeletDir,
    pub(super) mounter: Box<dyn Mounter>,
    pub(super) record_key: RecordKey,
    /// The SELinux label of a volume's root, where the node has SELinux.
    pub(super) rootcontext: Option<String>,
}

/// A target with our tmpfs on it.
pub(super) struct Mounted {
    pub(super) dir: VolumeDir,
    pub(super) device: u64,
    /// Mounted by this very call.
    pub(super) fresh: bool,
    pub(super) noswap: bool,
    pub(super) labelled: bool,
}

// === impl Places ===

impl Places {
    /// Mounts a tmpfs on the target, or finds ours there. What is mounted by somebody else stays
    /// untouched.
    pub(super) fn mount(
        &self,
        target: &TargetPath,
        ownership: &Ownership,
    ) -> Result<Mounted, NodeError> {
        let place = self.place(target)?.ok_or_else(|| {
            NodeError::NoParent(target.path().parent().unwrap_or(target.path()).to_owned())
        })?;
        let io = |doing| NodeError::io(doing, target.path());
        let created = place.create().map_err(io("create"))?;
        if !created && place.is_mount_point().map_err(io("look at"))? {
            if !self.is_ours(target)? {
                return Err(NodeError::Foreign(target.path().to_owned()));
            }
            let dir = open(&place).map_err(io("open"))?;
            let device = place.device().map_err(io("look at"))?;
            return Ok(Mounted { dir, device, fresh: false, noswap: true, labelled: true });
        }
        let options = TmpfsOptions {
            rootcontext: self.rootcontext.clone(),
            ..TmpfsOptions::new(&self.driver_name).owned(ownership)
        };
        let mount = || {
            let directory = place.open_dir()?;
            let outcome = self.mounter.mount_tmpfs(directory.as_fd(), &options)?;
            let dir = open(&place)?;
            let labelled = outcome.rootcontext || options.rootcontext.is_none();
            let noswap = outcome.noswap;
            Ok(Mounted { dir, device: place.device()?, fresh: true, noswap, labelled })
        };
        mount().map_err(|source| {
            if let Err(error) = self.take_away(&place, target, None) {
                warn!(target = %target.path().display(), %error, "a failed mount left something");
            }
            NodeError::io("mount a tmpfs on", target.path())(source)
        })
    }

    /// Opens the tmpfs of a volume that is mounted.
    pub(super) fn open(&self, target: &TargetPath) -> Result<VolumeDir, NodeError> {
        let place = self.place(target)?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        place
            .ok_or_else(missing)
            .and_then(|place| open(&place))
            .map_err(NodeError::io("open", target.path()))
    }

    /// Opens the tmpfs of a volume to write to it: this device's, not what somebody mounted over
    /// it or, where kubelet's directory is itself on a tmpfs, what was below it.
    pub(super) fn open_ours(
        &self,
        target: &TargetPath,
        device: Option<u64>,
    ) -> Result<VolumeDir, NodeError> {
        let dir = self.open(target)?;
        let found = dir.device().map_err(NodeError::io("look at", target.path()))?;
        if Some(found) == device {
            Ok(dir)
        } else {
            Err(NodeError::Displaced(target.path().to_owned()))
        }
    }

    /// Whether the mount of this device is still the one on the target.
    pub(super) fn holds(
        &self,
        target: &TargetPath,
        device: Option<u64>,
    ) -> Result<bool, NodeError> {
        let Some(place) = self.place(target)? else {
            return Ok(false);
        };
        match place.device() {
            Ok(found) => Ok(Some(found) == device),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(NodeError::io("look at", target.path())(error)),
        }
    }

    /// Empties and unmounts whatever of ours is on the target, and removes its directory. A
    /// target that is gone, or not mounted as after a reboot, is fine.
    pub(super) fn remove(&self, target: &TargetPath, device: Option<u64>) -> Result<(), NodeError> {
        match self.place(target)? {
            Some(place) => self.take_away(&place, target, device),
            None => Ok(()),
        }
    }

    /// Takes the topmost mount of ours away, as [`Places::remove`] takes all; true if there is
    /// another below it.
    pub(super) fn remove_top(&self, target: &TargetPath) -> Result<bool, NodeError> {
        match self.place(target)? {
            Some(place) => self.take_one_away(&place, target, None),
            None => Ok(false),
        }
    }

    fn take_away(
        &self,
        place: &Target,
        target: &TargetPath,
        device: Option<u64>,
    ) -> Result<(), NodeError> {
        while self.take_one_away(place, target, device)? {}
        Ok(())
    }

    /// The same for the topmost mount; true if there is another below it.
    fn take_one_away(
        &self,
        place: &Target,
        target: &TargetPath,
        device: Option<u64>,
    ) -> Result<bool, NodeError> {
        let io = |doing| NodeError::io(doing, target.path());
        if place.is_mount_point().map_err(io("look at"))? {
            // The device we mounted is ours without asking; mountinfo of a full node is long.
            let known = device.is_some() && place.device().ok() == device;
            if !known && !self.is_ours(target)? {
                return Err(NodeError::Foreign(target.path().to_owned()));
            }
            // Containers may hold the tmpfs for a while after it is detached; the key goes now.
            let cleared = open(place).and_then(|dir| AtomicWriter::new(&dir).clear());
            if let Err(error) = cleared {
                warn!(target = %target.path().display(), %error, "could not empty the volume");
            }
            self.mounter.unmount(place.parent(), place.name()).map_err(io("unmount"))?;
        }
        if place.is_mount_point().map_err(io("look at"))? {
            return Ok(true);
        }
        place.remove().map_err(io("remove"))?;
        Ok(false)
    }

    fn place(&self, target: &TargetPath) -> Result<Option<Target>, NodeError> {
        match self.kubelet.open_parent(target) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NodeError::io("open the directory of", target.path())(error)),
        }
    }

    fn is_ours(&self, target: &TargetPath) -> Result<bool, NodeError> {
        let mounts = self.mounter.mounts().map_err(NodeError::io("read", "mountinfo"))?;
        // The last one is on top.
        let top = mounts.iter().rev().find(|mount| mount.mount_point == target.path());
        Ok(top.is_some_and(|mount| self.made(mount)))
    }

    /// Whether a mount of ours is on the target, below somebody else's.
    pub(super) fn is_covered(&self, target: &TargetPath) -> bool {
        let mounts = self.mounter.mounts().unwrap_or_default();
        let mut here = mounts.iter().filter(|mount| mount.mount_point == target.path());
        here.any(|mount| self.made(mount))
    }

    /// Other drivers mount tmpfs under the same kind of path; ours has our name as its source.
    pub(super) fn made(&self, mount: &MountEntry) -> bool {
        mount.is_tmpfs_of(&self.driver_name)
    }
}

fn open(place: &Target) -> io::Result<VolumeDir> {
    VolumeDir::open(place.open_dir()?)
}
