//! The root directory of a volume's tmpfs.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    fcntl::renameat,
    sys::{
        stat::{Mode, fstat, mkdirat},
        statfs::{TMPFS_MAGIC, fstatfs},
    },
    unistd::{Gid, Uid, UnlinkatFlags, unlinkat},
};
use tokio::net::UnixListener;
use zeroize::Zeroizing;

use super::{
    Ownership,
    socket::{self, Owner, SocketIdentity},
    tree,
};

/// The driver's own directory in the volume, 0700.
pub(super) const PRIVATE_DIR: &str = ".svid";

/// A descriptor of the root of a tmpfs.
#[derive(Debug)]
pub struct VolumeDir {
    fd: OwnedFd,
    private: OnceLock<OwnedFd>,
}

/// What a volume holds and could hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size in bytes.
    pub bytes_total: u64,
    /// Free bytes.
    pub bytes_free: u64,
    /// Files, directories and links there can be.
    pub inodes_total: u64,
    /// How many more.
    pub inodes_free: u64,
}

// === impl VolumeDir ===

impl VolumeDir {
    /// Takes a directory that must be on a tmpfs, so that no key can land on the node's disk.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        if fstatfs(&fd)?.filesystem_type() != TMPFS_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the directory is not on a tmpfs: keys are written to memory only",
            ));
        }
        Ok(Self { fd, private: OnceLock::new() })
    }

    /// Writes `.svid/<name>`, 0600, replacing it at once or not at all.
    pub fn write_private(&self, name: &str, data: &[u8]) -> io::Result<()> {
        tree::check_component(name.as_ref())?;
        let dir = self.private_dir(true)?;
        let temp = temp_name(name);
        let written = match tree::write_new(dir, &temp, data) {
            // Left behind by a crash; the volume has one writer at a time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tree::remove(dir, &temp)?;
                tree::write_new(dir, &temp, data)
            }
            other => other,
        };
        written?;
        renameat(dir, temp.as_os_str(), dir, name).map_err(|errno| {
            let _ = unlinkat(dir, temp.as_os_str(), UnlinkatFlags::NoRemoveDir);
            errno.into()
        })
    }

    /// Reads `.svid/<name>` of at most `max` bytes.
    pub fn read_private(&self, name: &str, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        tree::check_component(name.as_ref())?;
        tree::read_file(self.private_dir(false)?, name.as_ref(), max)
    }

    /// Removes `.svid/<name>`; fine if there is none.
    pub fn remove_private(&self, name: &str) -> io::Result<()> {
        tree::check_component(name.as_ref())?;
        let dir = match self.private_dir(false) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Listens at the socket of this name, in place of any that is there: the name is never absent
    /// in between. Call it inside a tokio runtime.
    pub fn bind_socket(
        &self,
        name: &str,
        own: &Ownership,
    ) -> io::Result<(UnixListener, SocketIdentity)> {
        let owner = Owner { uid: own.uid.map(Uid::from_raw), gid: own.gid.map(Gid::from_raw) };
        let mode = own.socket_mode();
        let listener = socket::bind_private_at(self.fd.as_fd(), name.as_ref(), owner, mode)?;
        let identity = self.socket(name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((listener, identity))
    }

    /// The socket that a name leads to now; `None` if there is no such name.
    pub fn socket(&self, name: &str) -> io::Result<Option<SocketIdentity>> {
        tree::check_component(name.as_ref())?;
        socket::identity_at(self.fd.as_fd(), name.as_ref())
    }

    /// The device number: another one for each mount.
    pub fn device(&self) -> io::Result<u64> {
        Ok(fstat(&self.fd)?.st_dev)
    }

    /// How full it is.
    pub fn usage(&self) -> io::Result<Usage> {
        let stat = fstatfs(&self.fd)?;
        let block = u64::try_from(stat.block_size()).unwrap_or(0);
        Ok(Usage {
            bytes_total: stat.blocks().saturating_mul(block),
            bytes_free: stat.blocks_available().saturating_mul(block),
            inodes_total: stat.files(),
            inodes_free: stat.files_free(),
        })
    }

    /// Removes what a crash left half-written in `.svid/`.
    pub(super) fn sweep_private(&self) -> io::Result<()> {
        let dir = match self.private_dir(false) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for (name, _) in tree::list(dir)? {
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b".") && bytes.ends_with(b".tmp") {
                tree::remove(dir, &name)?;
            }
        }
        Ok(())
    }

    fn private_dir(&self, create: bool) -> io::Result<BorrowedFd<'_>> {
        if let Some(fd) = self.private.get() {
            return Ok(fd.as_fd());
        }
        let name = OsStr::new(PRIVATE_DIR);
        let fd = match tree::open_dir(self.as_fd(), name) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                mkdirat(&self.fd, name, Mode::from_bits_truncate(0o700))?;
                tree::open_dir(self.as_fd(), name)?
            }
            other => other?,
        };
        Ok(self.private.get_or_init(|| fd).as_fd())
    }
}

impl AsFd for VolumeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn temp_name(name: &str) -> OsString {
    OsString::from(format!(".{name}.tmp"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs::File,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        path::Path,
    };

    use super::*;
    use crate::sys::{LinuxMounter, Mounter, TmpfsOptions, in_private_mount_namespace};

    /// Runs a test on a tmpfs of its own.
    pub(in crate::sys) fn on_tmpfs(
        options: &TmpfsOptions,
        test: impl FnOnce(&VolumeDir, &Path) + Send,
    ) {
        let dir = tempfile::tempdir().unwrap();
        in_private_mount_namespace(|| {
            let below = File::open(dir.path()).unwrap();
            LinuxMounter.mount_tmpfs(below.as_fd(), options).unwrap();
            let fd = File::open(dir.path()).unwrap().into();
            test(&VolumeDir::open(fd).unwrap(), dir.path());
        });
    }

    #[test]
    fn private_files_are_for_root_only_and_replaced_at_once() {
        on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
            let error = volume.read_private("record.json", 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            volume.remove_private("record.json").unwrap();

            volume.write_private("record.json", b"one").unwrap();
            let path = root.join(".svid/record.json");
            let inode = path.metadata().unwrap().ino();
            volume.write_private("record.json", b"two").unwrap();
            assert_ne!(path.metadata().unwrap().ino(), inode);
            assert_eq!(volume.read_private("record.json", 3).unwrap().as_slice(), b"two");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
            let dir = root.join(".svid").metadata().unwrap();
            assert_eq!(dir.permissions().mode() & 0o7777, 0o700);

            volume.remove_private("record.json").unwrap();
            assert_eq!(std::fs::read_dir(root.join(".svid")).unwrap().count(), 0);
            for bad in ["../x", "a/b", "..", ""] {
                volume.write_private(bad, b"").unwrap_err();
                volume.read_private(bad, 1).unwrap_err();
                volume.remove_private(bad).unwrap_err();
            }
        });
    }

    #[test]
    fn a_leftover_temporary_file_is_in_nobodys_way() {
        on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
            volume.write_private("a", b"1").unwrap();
            std::fs::write(root.join(".svid/.a.tmp"), "half").unwrap();
            volume.write_private("a", b"2").unwrap();
            assert_eq!(volume.read_private("a", 9).unwrap().as_slice(), b"2");
            std::fs::write(root.join(".svid/.a.tmp"), "half").unwrap();
            volume.sweep_private().unwrap();
            assert_eq!(std::fs::read_dir(root.join(".svid")).unwrap().count(), 1);
        });
    }

    #[test]
    fn symlinks_in_place_of_private_names_are_not_followed() {
        on_tmpfs(&TmpfsOptions::new("test"), |volume, root| {
            let outside = root.join("outside");
            std::fs::create_dir(&outside).unwrap();
            symlink(&outside, root.join(".svid")).unwrap();
            volume.write_private("a", b"1").unwrap_err();
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
            std::fs::remove_file(root.join(".svid")).unwrap();

            std::fs::write(outside.join("target"), "keep").unwrap();
            volume.write_private("b", b"1").unwrap();
            symlink(outside.join("target"), root.join(".svid/a")).unwrap();
            symlink(outside.join("target"), root.join(".svid/.a.tmp")).unwrap();
            volume.read_private("a", 10).unwrap_err();
            volume.write_private("a", b"new").unwrap();
            assert_eq!(std::fs::read(outside.join("target")).unwrap(), b"keep");
            assert_eq!(volume.read_private("a", 10).unwrap().as_slice(), b"new");
        });
    }

    #[test]
    fn a_full_tmpfs_keeps_the_old_private_file() {
        // Invariant 3: never worse.
        let options = TmpfsOptions { size: 64 << 10, ..TmpfsOptions::new("test") };
        on_tmpfs(&options, |volume, root| {
            volume.write_private("record.json", b"old").unwrap();
            let error = volume.write_private("record.json", &[b'x'; 100_000]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(volume.read_private("record.json", 9).unwrap().as_slice(), b"old");
            assert_eq!(std::fs::read_dir(root.join(".svid")).unwrap().count(), 1);
        });
    }
}
