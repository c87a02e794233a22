//! A volume's target directory, reached from its open parent.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{kubelet_dir::TargetPath, tree};

/// A target whose parent is open. Made by [`KubeletDir::open_parent`](super::KubeletDir::open_parent).
#[derive(Debug)]
pub struct Target {
    parent: OwnedFd,
    path: TargetPath,
}

// === impl Target ===

impl Target {
    pub(super) fn new(parent: OwnedFd, path: TargetPath) -> Self {
        Self { parent, path }
    }

    /// What was opened.
    pub fn target_path(&self) -> &TargetPath {
        &self.path
    }

    /// The canonical absolute path, for messages and to compare with mountinfo.
    pub fn path(&self) -> &Path {
        self.path.path()
    }

    /// The parent directory, for [`Mounter::unmount`](super::Mounter::unmount).
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// The name in the parent directory.
    pub fn name(&self) -> &OsStr {
        OsStr::new(self.path.name())
    }

    /// The pod's UID.
    pub fn pod_uid(&self) -> &str {
        &self.path.pod_uid
    }

    /// The volume's name in the pod's spec.
    pub fn volume_name(&self) -> &str {
        &self.path.volume_name
    }

    /// Makes the directory, 0750; `false` if it was there. Anything else in its place, a symlink
    /// included, is an error of kind `NotADirectory`.
    pub fn create(&self) -> io::Result<bool> {
        match mkdirat(&self.parent, self.name(), Mode::from_bits_truncate(0o750)) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => {
                let stat = fstatat(&self.parent, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                    Ok(false)
                } else {
                    Err(io::Error::new(
                        io::ErrorKind::NotADirectory,
                        format!("{} exists and is not a directory; remove it", self.path),
                    ))
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens the directory, or the root of what is mounted on it; never through a symlink.
    pub fn open_dir(&self) -> io::Result<OwnedFd> {
        tree::open_dir(self.parent.as_fd(), self.name())
    }

    /// Whether something is mounted on it, a bind mount of the same file system included.
    /// `false` if there is no such directory.
    pub fn is_mount_point(&self) -> io::Result<bool> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.parent, self.name(), how) {
            Ok(_) | Err(Errno::ENOENT) => Ok(false),
            Err(Errno::EXDEV) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The device number of what is at the target: another one after a remount.
    pub fn device(&self) -> io::Result<u64> {
        let stat = fstatat(&self.parent, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(stat.st_dev)
    }

    /// Removes the empty directory; fine if it is gone.
    pub fn remove(&self) -> io::Result<()> {
        match unlinkat(&self.parent, self.name(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::PathBuf};

    use nix::mount::{MsFlags, mount};

    use super::*;
    use crate::sys::{
        KubeletDir, LinuxMounter, Mounter, TmpfsOptions, VolumeDir, in_private_mount_namespace,
    };

    const RELATIVE: &str = "pods/uid/volumes/kubernetes.io~csi/svid/mount";

    fn target(root: &Path) -> (Target, PathBuf) {
        let path = root.join(RELATIVE);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let kubelet = KubeletDir::open(root).unwrap();
        let target = kubelet.parse_relative(RELATIVE).unwrap();
        (kubelet.open_parent(&target).unwrap(), path)
    }

    #[test]
    fn create_and_remove_can_be_repeated() {
        let root = tempfile::tempdir().unwrap();
        let (target, path) = target(root.path());
        assert!(!target.is_mount_point().unwrap());
        assert!(target.create().unwrap());
        assert!(!target.create().unwrap());
        assert!(path.is_dir());
        assert!(!target.is_mount_point().unwrap());
        target.remove().unwrap();
        target.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(target.open_dir().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_symlink_or_file_in_its_place_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let (target, path) = target(root.path());
        symlink(outside.path(), &path).unwrap();
        assert_eq!(target.create().unwrap_err().kind(), io::ErrorKind::NotADirectory);
        target.open_dir().unwrap_err();
        target.is_mount_point().unwrap_err();
        target.remove().unwrap_err();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(target.create().unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_tmpfs_is_mounted_on_the_target_and_detached_while_in_use() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        in_private_mount_namespace(|| {
            let (target, path) = target(&root);
            target.create().unwrap();
            let before = target.device().unwrap();
            let dir = target.open_dir().unwrap();
            assert!(VolumeDir::open(dir).is_err(), "the node's disk is not a volume");

            let options = TmpfsOptions {
                mode: 0o750,
                gid: Some(4711),
                rootcontext: Some(crate::sys::selinux::CONTAINER_FILE_CONTEXT.into()),
                ..TmpfsOptions::new("csi.svid.dev")
            };
            let dir = target.open_dir().unwrap();
            LinuxMounter.mount_tmpfs(dir.as_fd(), &options).unwrap();
            assert!(target.is_mount_point().unwrap());
            assert_ne!(target.device().unwrap(), before);
            let mounts = LinuxMounter.mounts().unwrap();
            let entry = mounts.iter().find(|m| m.mount_point == path).unwrap();
            assert!(entry.is_tmpfs_of("csi.svid.dev"));
            for option in ["nosuid", "nodev", "noexec"] {
                assert!(entry.options.split(',').any(|o| o == option), "{entry:?}");
            }
            for option in ["size=4096k", "nr_inodes=2048", "mode=750", "gid=4711"] {
                assert!(entry.super_options.split(',').any(|o| o == option), "{entry:?}");
            }

            let volume = VolumeDir::open(target.open_dir().unwrap()).unwrap();
            let usage = volume.usage().unwrap();
            assert_eq!((usage.bytes_total, usage.inodes_total), (4 << 20, 2048));
            // The descriptor keeps it busy: a plain umount would be refused.
            LinuxMounter.unmount(target.parent(), target.name()).unwrap();
            assert!(!target.is_mount_point().unwrap());
            assert_eq!(target.device().unwrap(), before);
            let error = LinuxMounter.unmount(target.parent(), target.name()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::EINVAL as i32));
            target.remove().unwrap();
        });
    }

    #[test]
    fn a_bind_mount_of_the_same_file_system_is_seen() {
        let root = tempfile::tempdir().unwrap();
        in_private_mount_namespace(|| {
            let (target, path) = target(root.path());
            target.create().unwrap();
            let source = root.path().join("source");
            std::fs::create_dir(&source).unwrap();
            mount(Some(&source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            assert!(target.is_mount_point().unwrap());
        });
    }

    #[test]
    fn unmount_does_not_follow_a_symlink() {
        let root = tempfile::tempdir().unwrap();
        in_private_mount_namespace(|| {
            let (target, path) = target(root.path());
            let elsewhere = root.path().join("elsewhere");
            std::fs::create_dir(&elsewhere).unwrap();
            let fd = std::fs::File::open(&elsewhere).unwrap();
            LinuxMounter.mount_tmpfs(fd.as_fd(), &TmpfsOptions::new("x")).unwrap();
            symlink(&elsewhere, &path).unwrap();
            LinuxMounter.unmount(target.parent(), target.name()).unwrap_err();
            LinuxMounter.unmount(target.parent(), OsStr::new("../x")).unwrap_err();
            let mounts = LinuxMounter.mounts().unwrap();
            assert!(mounts.iter().any(|m| m.mount_point.ends_with("elsewhere")));
        });
    }
}
