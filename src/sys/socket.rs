//! Unix sockets under paths of any length, never open to anyone too early.
//!
//! A socket's address has room for 108 bytes and kubelet's paths are longer, so each goes through
//! `/proc/self/fd/<directory>/<name>`.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, renameat},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat},
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat},
};
use tokio::net::{UnixListener, UnixSocket};

use super::{mounter::fd_path, tree};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Which socket a name leads to: another one after someone bound or removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketIdentity {
    device: u64,
    inode: u64,
}

/// Whose a socket becomes; who binds it, where nobody is named.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
}

/// Why a name is not bound. Comes as the inner error of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Occupied {
    /// Kind `AddrInUse`.
    #[error("a process is listening on {}; stop it first", .0.display())]
    Listening(PathBuf),
    /// Kind `AlreadyExists`.
    #[error("{} exists and is not a socket; remove it", .0.display())]
    NotASocket(PathBuf),
}

/// Listens at `path` with these permission bits, in place of a socket that nobody serves any
/// more. [`Occupied`] if someone does, or if the name is not a socket's.
///
/// Call it inside a tokio runtime. The directory must exist; symlinks on the way to it are fine.
pub fn bind_private(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let (dir, name) = open_parent(path)?;
    let dir = dir.as_fd();
    if let Some(is_socket) = look(dir, name)? {
        if !is_socket {
            let occupied = Occupied::NotASocket(path.to_owned());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, occupied));
        }
        match UnixStream::connect(fd_path(dir).join(name)) {
            // Bound by a process that is gone, or gone by now.
            Err(error) if is_stale(&error) => {}
            Ok(_) => {
                let occupied = Occupied::Listening(path.to_owned());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, occupied));
            }
            // Whether someone is there cannot be told, so nobody is displaced.
            Err(error) => return Err(error),
        }
    }
    bind_private_at(dir, name, Owner::default(), mode)
}

/// Listens at a name in a directory that is the caller's alone, in place of any socket there:
/// the name is never absent, whoever connects gets the old one or the new one.
pub(super) fn bind_private_at(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    own: Owner,
    mode: u32,
) -> io::Result<UnixListener> {
    tree::check_component(name)?;
    if look(dir, name)? == Some(false) {
        let path = std::fs::read_link(fd_path(dir)).unwrap_or_default().join(name);
        let occupied = Occupied::NotASocket(path);
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, occupied));
    }
    // Kubelet, which watches one of our directories, ignores names that begin with a dot.
    let mut temp = std::ffi::OsString::from(".");
    temp.push(name);
    temp.push(".tmp");
    tree::remove(dir, &temp)?;

    let socket = UnixSocket::new_stream()?;
    socket.bind(fd_path(dir).join(&temp))?;
    let bound = (|| {
        // Nobody can connect before `listen`, so the umask's permissions let nobody in.
        // The name is in a directory that only we write to, and was made just now.
        fchownat(dir, temp.as_os_str(), own.uid, own.gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        fchmodat(
            dir,
            temp.as_os_str(),
            Mode::from_bits_truncate(mode),
            FchmodatFlags::FollowSymlink,
        )?;
        let listener = socket.listen(BACKLOG)?;
        renameat(dir, temp.as_os_str(), dir, name)?;
        Ok(listener)
    })();
    if bound.is_err() {
        let _ = unlinkat(dir, temp.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
    bound
}

/// Connects to a socket at a path of any length. Blocks while its backlog is full.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (dir, name) = open_parent(path)?;
    UnixStream::connect(fd_path(dir.as_fd()).join(name))
}

/// The same for tokio. It waits on a thread of its own.
pub async fn connect_stream(path: PathBuf) -> io::Result<tokio::net::UnixStream> {
    let stream = tokio::task::spawn_blocking(move || connect(&path));
    let stream = stream.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// The socket that `path` leads to now; `None` if there is no such name.
pub fn identity(path: &Path) -> io::Result<Option<SocketIdentity>> {
    let (dir, name) = match open_parent(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    identity_at(dir.as_fd(), name)
}

/// The same for a name in a directory.
pub(super) fn identity_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<SocketIdentity>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(SocketIdentity { device: stat.st_dev, inode: stat.st_ino })),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the name if it still leads to the socket `ours`.
pub fn remove_if(path: &Path, ours: SocketIdentity) -> io::Result<()> {
    if identity(path)? != Some(ours) {
        return Ok(());
    }
    let (dir, name) = open_parent(path)?;
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_stale(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

fn open_parent(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let Some(name) = path.file_name() else {
        return Err(tree::invalid_input(format!("{} does not name a socket", path.display())));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok((dir, name))
}

/// Whether the name is a socket's; `None` if there is no such name.
fn look(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<bool>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            Ok(Some(kind == SFlag::S_IFSOCK))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn inner(error: &io::Error) -> Option<&Occupied> {
        error.get_ref()?.downcast_ref()
    }

    #[tokio::test]
    async fn binds_and_connects_beyond_108_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("spiffe.sock");
        let listener = bind_private(&path, 0o666).unwrap();
        let client = connect(&path).unwrap();
        listener.accept().await.unwrap();
        drop(client);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o666, "whatever the umask");
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_socket_in_service_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        let first = bind_private(&path, 0o600).unwrap();
        let ours = identity(&path).unwrap().unwrap();
        let error = bind_private(&path, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(matches!(inner(&error), Some(Occupied::Listening(_))));
        assert_eq!(identity(&path).unwrap(), Some(ours));

        // After a crash the name is still there and nobody listens.
        drop(first);
        let _second = bind_private(&path, 0o600).unwrap();
        assert_ne!(identity(&path).unwrap(), Some(ours));
        remove_if(&path, ours).unwrap();
        assert!(path.exists(), "another's socket stays");
        let now = identity(&path).unwrap().unwrap();
        remove_if(&path, now).unwrap();
        assert_eq!(identity(&path).unwrap(), None);
        remove_if(&path, now).unwrap();
        assert_eq!(identity(&dir.path().join("gone/x")).unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = bind_private(&path, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(matches!(inner(&error), Some(Occupied::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        std::fs::remove_file(&path).unwrap();
        symlink("elsewhere", &path).unwrap();
        let error = bind_private(&path, 0o600).unwrap_err();
        assert!(matches!(inner(&error), Some(Occupied::NotASocket(_))));
    }

    #[tokio::test]
    async fn in_a_volume_a_new_listener_replaces_the_old_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let name = OsStr::new("spiffe.sock");
        std::fs::write(dir.path().join(".spiffe.sock.tmp"), "left by a crash").unwrap();
        let old = bind_private_at(fd.as_fd(), name, Owner::default(), 0o660).unwrap();
        let new = bind_private_at(fd.as_fd(), name, Owner::default(), 0o660).unwrap();
        let _client = connect(&dir.path().join(name)).unwrap();
        new.accept().await.unwrap();
        drop(old);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
