//! Files that anybody may have put there.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::tree::invalid_input;

/// A regular file's content, and whose it is.
pub struct RegularFile {
    /// The content, which may be a private key.
    pub content: Zeroizing<Vec<u8>>,
    /// Of the file that the content is from.
    pub metadata: Metadata,
}

// === impl RegularFile ===

impl RegularFile {
    /// Reads a file of at most `max` bytes. Symlinks are followed; a fifo, device or directory in
    /// its place is refused and not waited for.
    pub fn read(path: &Path, max: usize) -> io::Result<Self> {
        // Opening some devices does something already.
        check(&std::fs::metadata(path)?, max)?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let metadata = file.metadata()?;
        check(&metadata, max)?;
        let content = read_bounded(file, usize::try_from(metadata.len()).unwrap_or(max), max)?;
        Ok(Self { content, metadata })
    }
}

/// Reads to the end of at most `max` bytes; `expected` is how many there should be.
pub fn read_bounded(
    source: impl Read,
    expected: usize,
    max: usize,
) -> io::Result<Zeroizing<Vec<u8>>> {
    // All the room at once, so that a key leaves no copy behind in a smaller buffer.
    let mut content = Zeroizing::new(Vec::with_capacity(expected.min(max) + 1));
    source.take(max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max {
        return Err(too_large(max));
    }
    Ok(content)
}

fn check(metadata: &Metadata, max: usize) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(invalid_input("it is not a regular file".to_owned()));
    }
    if metadata.len() > max as u64 {
        return Err(too_large(max));
    }
    Ok(())
}

fn too_large(max: usize) -> io::Error {
    let message = format!("it has more than {max} bytes");
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn reads_through_links_and_refuses_what_is_no_file_or_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "four").unwrap();
        symlink("file", path("link")).unwrap();
        let read = |name: &str, max| RegularFile::read(&path(name), max).map(|f| f.content.len());
        assert_eq!(read("link", 4).unwrap(), 4);
        let kind = |name: &str, max| read(name, max).unwrap_err().kind();
        assert_eq!(kind("link", 3), io::ErrorKind::FileTooLarge);
        assert_eq!(kind("none", 3), io::ErrorKind::NotFound);
        assert_eq!(kind(".", 3), io::ErrorKind::IsADirectory);
        // Nobody writes into it: a reader that opened it plainly would hang.
        mkfifo(&path("fifo"), Mode::S_IRUSR).unwrap();
        assert_eq!(kind("fifo", 3), io::ErrorKind::InvalidInput);
        symlink("loop", path("loop")).unwrap();
        read("loop", 3).unwrap_err();
        let zero = RegularFile::read(Path::new("/dev/zero"), 3);
        assert_eq!(zero.err().unwrap().kind(), io::ErrorKind::InvalidInput);
    }
}
