//! The set of files a volume shows now.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{dir::Type, errno::Errno, fcntl::readlinkat};
use zeroize::Zeroizing;

use super::tree;

/// The link whose target is the current set.
pub(super) const DATA: &str = "..data";

/// A set directory, resolved once: what is read through it belongs together.
#[derive(Debug)]
pub struct CurrentSet {
    fd: OwnedFd,
    sequence: u64,
}

// === impl CurrentSet ===

impl CurrentSet {
    /// The set that `..data` leads to; `None` if there is no such link.
    pub(super) fn open(root: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let link = match readlinkat(root, DATA) {
            Ok(link) => link,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let Some(sequence) = parse_set_name(&link) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("..data leads to {link:?}, which is not a set of files"),
            ));
        };
        let fd = tree::open_dir(root, &link)?;
        Ok(Some(Self { fd, sequence }))
    }

    /// Counts up with every write.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A file of at most `max` bytes.
    pub fn read(&self, path: &str, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        tree::read_file(self.fd.as_fd(), path.as_ref(), max)
    }

    /// The relative paths of all files, sorted.
    pub fn paths(&self) -> io::Result<Vec<String>> {
        let mut paths = Vec::new();
        collect(self.fd.as_fd(), "", &mut paths)?;
        paths.sort();
        Ok(paths)
    }

    pub(super) fn top_level(&self) -> io::Result<Vec<OsString>> {
        Ok(tree::list(self.fd.as_fd())?.into_iter().map(|(name, _)| name).collect())
    }
}

fn collect(dir: BorrowedFd<'_>, prefix: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for (name, kind) in tree::list(dir)? {
        let path = format!("{prefix}{}", name.to_string_lossy());
        if kind == Some(Type::Directory) {
            collect(tree::open_dir(dir, &name)?.as_fd(), &format!("{path}/"), paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// The name of a set directory.
pub(super) fn set_name(sequence: u64) -> OsString {
    OsString::from(format!("..{sequence}"))
}

/// The sequence number in a set directory's name; only the exact spelling counts.
pub(super) fn parse_set_name(name: &OsStr) -> Option<u64> {
    let sequence = name.to_str()?.strip_prefix("..")?.parse().ok()?;
    (set_name(sequence) == name).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_names() {
        for (name, sequence) in [
            ("..1", Some(1)),
            ("..18446744073709551615", Some(u64::MAX)),
            ("..18446744073709551616", None),
            ("..01", None),
            ("..+1", None),
            ("..", None),
            ("..data", None),
            (".1", None),
            ("1", None),
            ("..1/../..", None),
        ] {
            assert_eq!(parse_set_name(OsStr::new(name)), sequence, "{name}");
        }
    }
}
