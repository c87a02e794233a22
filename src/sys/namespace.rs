//! Private mount namespaces, for tests and the demo.

use std::{fs, io, panic, thread};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

/// How a process got a mount namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// It has `CAP_SYS_ADMIN`.
    Mount,
    /// In a user namespace of its own, where it is root and nobody else exists.
    UserAndMount,
}

/// Gives the whole process a mount namespace of its own, and a user namespace too if it may not
/// have one otherwise. The process must have a single thread still.
///
/// Its children are in the namespace, and with the last of them the mounts are gone.
pub fn isolate() -> io::Result<Isolation> {
    match enter_private_mount_namespace() {
        Ok(()) => Ok(Isolation::Mount),
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {
            enter_user_namespace()?;
            Ok(Isolation::UserAndMount)
        }
        Err(error) => Err(error),
    }
}

/// A user and a mount namespace; the caller's uid and gid are 0 in it (user_namespaces(7)).
fn enter_user_namespace() -> io::Result<()> {
    // Afterwards they are the overflow uid and gid until the maps are written.
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // Without privilege outside, a group map is taken only once setgroups(2) is off.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    make_mounts_private()
}

/// Gives the calling thread a mount namespace of its own, from which no mount gets out and into
/// which none comes. Threads it starts later are in it too. Needs `CAP_SYS_ADMIN`.
pub fn enter_private_mount_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    make_mounts_private()
}

fn make_mounts_private() -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Runs `f` on a thread that has a mount namespace of its own, which ends with it. A runtime
/// started inside `f` is in the namespace with all its workers.
pub fn try_in_private_mount_namespace<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let body = scope.spawn(|| {
            enter_private_mount_namespace()?;
            Ok(f())
        });
        match body.join() {
            Ok(result) => result,
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// [`try_in_private_mount_namespace`] for tests.
///
/// # Panics
///
/// Without `CAP_SYS_ADMIN`, or if `f` does.
#[expect(clippy::panic, reason = "for tests, which run as root")]
pub fn in_private_mount_namespace<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    match try_in_private_mount_namespace(f) {
        Ok(value) => value,
        Err(error) => panic!("cannot make a private mount namespace (run as root): {error}"),
    }
}
