//! Files and directories beneath a directory descriptor.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{Mode, SFlag, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};
use zeroize::Zeroizing;

/// Deeper trees than this are not ours.
const MAX_DEPTH: usize = 8;

/// Refuses what is not one plain path component.
pub(super) fn check_component(name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 {
        return Err(invalid_input(format!("a file name has 1 to 255 bytes, {name:?} does not")));
    }
    if bytes == b"." || bytes == b".." || bytes.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(invalid_input(format!("{name:?} is not a file name")));
    }
    Ok(())
}

pub(super) fn invalid_input(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Opens a directory by one name, not following a symlink.
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(
        parent,
        name,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// Creates a file that must not exist, mode 0600.
pub(super) fn create_file(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let fd = openat(
        parent,
        name,
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::from_bits_truncate(0o600),
    )?;
    Ok(File::from(fd))
}

/// Creates a file with this content; removes it again if that fails half-way.
pub(super) fn write_new(parent: BorrowedFd<'_>, name: &OsStr, data: &[u8]) -> io::Result<File> {
    let mut file = create_file(parent, name)?;
    if let Err(error) = file.write_all(data) {
        let _ = unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        return Err(error);
    }
    Ok(file)
}

/// Reads a regular file of at most `max` bytes at a relative path of which no part is a symlink.
pub(super) fn read_file(
    root: BorrowedFd<'_>,
    path: &OsStr,
    max: usize,
) -> io::Result<Zeroizing<Vec<u8>>> {
    // O_NONBLOCK: a fifo in the file's place must not hang us.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    let fd = openat2(root, path, how)?;
    let stat = fstat(&fd)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(invalid_input(format!("{path:?} is not a regular file")));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > max {
        return Err(too_large(path, max));
    }
    // All the room at once, so that a key leaves no copy behind in a smaller buffer.
    let mut data = Zeroizing::new(Vec::with_capacity(size + 1));
    File::from(fd).take(max as u64 + 1).read_to_end(&mut data)?;
    if data.len() > max {
        return Err(too_large(path, max));
    }
    Ok(data)
}

fn too_large(path: &OsStr, max: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("{path:?} has more than {max} bytes"))
}

/// The entries of a directory but `.` and `..`.
pub(super) fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(OsString, Option<Type>)>> {
    // A new description: the descriptor's own read position stays where it is.
    let mut dir = Dir::openat(
        dir,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut entries = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            entries.push((name.to_os_string(), entry.file_type()));
        }
    }
    Ok(entries)
}

/// Removes a name with all beneath it, on this file system only. What is gone already is fine;
/// what cannot be removed does not keep the rest, and is the error.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    remove_at(parent, name, MAX_DEPTH)
}

fn remove_at(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // POSIX has EPERM for a directory, Linux EISDIR.
        Err(Errno::EISDIR | Errno::EPERM) if depth > 0 => {}
        Err(errno) => return Err(errno.into()),
    }
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let dir = openat2(parent, name, how)?;
    let mut result = Ok(());
    for (child, _) in list(dir.as_fd())? {
        result = result.and(remove_at(dir.as_fd(), &child, depth - 1));
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => result,
        Err(errno) => result.and(Err(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn component_rules() {
        for good in ["a", ".a", "..a", "a b", &"x".repeat(255)] {
            check_component(OsStr::new(good)).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
            check_component(OsStr::new(bad)).unwrap_err();
        }
    }

    #[test]
    fn reads_within_bounds_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("four"), "1234").unwrap();
        symlink("four", at("link")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        std::fs::write(at("dir/file"), "").unwrap();
        symlink("dir", at("dirlink")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        let root = File::open(dir.path()).unwrap();
        let read = |path: &str, max| read_file(root.as_fd(), OsStr::new(path), max);

        assert_eq!(read("four", 4).unwrap().as_slice(), b"1234");
        assert_eq!(read("four", 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read("dir/file", 0).unwrap().is_empty());
        for bad in ["link", "dirlink/file", "dir", "fifo", "../x", "/etc/passwd", "dir/../four/"] {
            read(bad, 10_000).unwrap_err();
        }
        // Never says where it is, and a `..` that stays beneath is no way out.
        assert_eq!(read("dir/../four", 4).unwrap().as_slice(), b"1234");
    }

    #[test]
    fn removing_does_not_follow_symlinks() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("keep"), "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        symlink(outside.path(), dir.path().join("a/b/out")).unwrap();
        symlink(outside.path(), dir.path().join("top")).unwrap();
        let root = File::open(dir.path()).unwrap();
        for name in ["a", "top", "absent"] {
            remove(root.as_fd(), OsStr::new(name)).unwrap();
        }
        assert!(list(root.as_fd()).unwrap().is_empty());
        assert!(outside.path().join("keep").exists());
    }
}
