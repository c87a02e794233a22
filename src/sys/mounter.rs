//! Mounting and unmounting a volume's tmpfs.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::{file_set::Ownership, mountinfo::MountEntry};

/// Mounts and unmounts tmpfs and lists what is mounted.
pub trait Mounter: Send + Sync {
    /// Mounts a tmpfs on the directory behind `target` (an `O_PATH` descriptor will do),
    /// `nosuid,nodev,noexec`.
    ///
    /// The descriptor goes on showing the directory underneath: open the target again to get
    /// at the tmpfs.
    fn mount_tmpfs(
        &self,
        target: BorrowedFd<'_>,
        options: &TmpfsOptions,
    ) -> io::Result<MountOutcome>;

    /// Detaches the topmost mount on `name` in `parent`, never following a symlink.
    /// `EINVAL` if nothing is mounted there, `ENOENT` if there is no such name.
    fn unmount(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()>;

    /// The mounts in the calling thread's mount namespace, in mount order.
    fn mounts(&self) -> io::Result<Vec<MountEntry>>;
}

/// What a volume's tmpfs is mounted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// The mount's source, by which the driver knows its own: the driver's name.
    pub source: String,
    /// Limit in bytes.
    pub size: u64,
    /// Limit of files, directories and links.
    pub nr_inodes: u64,
    /// Permission bits of the root directory.
    pub mode: u32,
    /// Owner of the root directory; root if unset.
    pub uid: Option<u32>,
    /// Group of the root directory; root if unset.
    pub gid: Option<u32>,
    /// SELinux label of the root directory, which new files inherit.
    pub rootcontext: Option<String>,
}

/// Which of the optional mount options the kernel took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountOutcome {
    /// The pages never go to swap.
    pub noswap: bool,
    /// The root directory has the SELinux label that was asked for.
    pub rootcontext: bool,
}

/// The kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxMounter;

/// Set once a mount succeeded without `noswap` just after it was refused with: from then on the
/// option is not tried again. It depends on the kernel and the user namespace, not on the mount.
static NOSWAP_REFUSED: AtomicBool = AtomicBool::new(false);

// === impl TmpfsOptions ===

impl TmpfsOptions {
    /// Root-owned and 0755, with room for four sets and a hundred federated bundles (DESIGN.md §4);
    /// what isn't used costs nothing.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            size: 4 << 20,
            nr_inodes: 2048,
            mode: 0o755,
            uid: None,
            gid: None,
            rootcontext: None,
        }
    }

    /// The root directory belongs to whom its files will belong to.
    #[must_use]
    pub fn owned(self, own: &Ownership) -> Self {
        Self { mode: own.dir_mode, uid: own.uid, gid: own.gid, ..self }
    }

    fn data(&self, noswap: bool, rootcontext: bool) -> String {
        let mut data =
            format!("size={},nr_inodes={},mode={:04o}", self.size, self.nr_inodes, self.mode);
        if let Some(uid) = self.uid {
            data.push_str(&format!(",uid={uid}"));
        }
        if let Some(gid) = self.gid {
            data.push_str(&format!(",gid={gid}"));
        }
        if noswap {
            data.push_str(",noswap");
        }
        if let (true, Some(context)) = (rootcontext, &self.rootcontext) {
            data.push_str(&format!(",rootcontext=\"{context}\""));
        }
        data
    }
}

// === impl LinuxMounter ===

impl Mounter for LinuxMounter {
    fn mount_tmpfs(
        &self,
        target: BorrowedFd<'_>,
        options: &TmpfsOptions,
    ) -> io::Result<MountOutcome> {
        let path = fd_path(target);
        negotiate(options, &NOSWAP_REFUSED, |data| {
            mount(
                Some(options.source.as_str()),
                &path,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Some(data),
            )
        })
    }

    fn unmount(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        // UMOUNT_NOFOLLOW guards the last component; the descriptor is all that precedes it.
        super::tree::check_component(name)?;
        umount2(&fd_path(parent).join(name), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        Ok(())
    }

    fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        // Not `self`: that shows the namespace of the thread group's leader.
        Ok(MountEntry::parse_all(&std::fs::read("/proc/thread-self/mountinfo")?))
    }
}

/// A path to the file behind a descriptor, for calls that take only paths.
pub(super) fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

/// Mounts with every option first and without those that `EINVAL` may have been about next.
///
/// The kernel says only `EINVAL`, which may also mean a `uid=` or `gid=` that the user namespace
/// does not map: so `noswap` counts as refused only once a mount without it succeeded.
fn negotiate(
    options: &TmpfsOptions,
    noswap_refused: &AtomicBool,
    mut mount: impl FnMut(&str) -> Result<(), Errno>,
) -> io::Result<MountOutcome> {
    let ask_noswap = !noswap_refused.load(Ordering::Relaxed);
    let ask_context = options.rootcontext.is_some();
    let attempts = [(true, true), (false, true), (true, false), (false, false)]
        .into_iter()
        .filter(|(noswap, context)| (!noswap || ask_noswap) && (!context || ask_context));
    for (noswap, rootcontext) in attempts {
        match mount(&options.data(noswap, rootcontext)) {
            Ok(()) => {
                if !noswap {
                    noswap_refused.store(true, Ordering::Relaxed);
                }
                return Ok(MountOutcome { noswap, rootcontext });
            }
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        options: &TmpfsOptions,
        refused: &AtomicBool,
        refuses: &[&str],
    ) -> (io::Result<MountOutcome>, usize) {
        let mut tries = 0;
        let outcome = negotiate(options, refused, |data| {
            tries += 1;
            if refuses.iter().any(|option| data.contains(option)) {
                Err(Errno::EINVAL)
            } else {
                Ok(())
            }
        });
        (outcome, tries)
    }

    fn with_context() -> TmpfsOptions {
        TmpfsOptions {
            rootcontext: Some("system_u:object_r:container_file_t:s0".into()),
            ..TmpfsOptions::new("csi.svid.dev")
        }
    }

    #[test]
    fn options_are_dropped_only_when_refused() {
        let plain = TmpfsOptions::new("csi.svid.dev");
        for (options, refuses, noswap, rootcontext, tries) in [
            (plain.clone(), vec![], true, false, 1),
            (plain, vec!["noswap"], false, false, 2),
            (with_context(), vec![], true, true, 1),
            (with_context(), vec!["noswap"], false, true, 2),
            (with_context(), vec!["rootcontext"], true, false, 3),
            (with_context(), vec!["noswap", "rootcontext"], false, false, 4),
        ] {
            let refused = AtomicBool::new(false);
            let (outcome, tried) = run(&options, &refused, &refuses);
            let outcome = outcome.unwrap();
            assert_eq!((outcome.noswap, outcome.rootcontext), (noswap, rootcontext));
            assert_eq!(tried, tries, "{refuses:?}");
            assert_eq!(refused.load(Ordering::Relaxed), !noswap);
        }
    }

    #[test]
    fn refused_noswap_is_asked_for_once() {
        let refused = AtomicBool::new(false);
        let options = TmpfsOptions::new("csi.svid.dev");
        assert_eq!(run(&options, &refused, &["noswap"]).1, 2);
        assert_eq!(run(&options, &refused, &["noswap"]).1, 1);
    }

    #[test]
    fn an_unmapped_gid_is_not_taken_for_refused_noswap() {
        let refused = AtomicBool::new(false);
        let options = TmpfsOptions { gid: Some(4_000_000), ..TmpfsOptions::new("csi.svid.dev") };
        let error = run(&options, &refused, &["gid="]).0.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EINVAL as i32));
        assert!(!refused.load(Ordering::Relaxed));
    }

    #[test]
    fn other_errors_end_the_attempts() {
        let refused = AtomicBool::new(false);
        let mut tries = 0;
        let error = negotiate(&with_context(), &refused, |_| {
            tries += 1;
            Err(Errno::EPERM)
        })
        .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32));
        assert_eq!(tries, 1);
    }
}
