//! Private mount namespaces, for tests and the demo.

use std::{io, panic, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Gives the calling thread a mount namespace of its own, from which no mount gets out and into
/// which none comes. Threads it starts later are in it too. Needs `CAP_SYS_ADMIN`.
pub fn enter_private_mount_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
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
