//! One process at a time in a directory.

use std::{fs::File, io, path::Path};

/// An exclusive `flock` on a directory, held until this is dropped or the process ends, however
/// it ends. Leaves nothing behind and works on a read-only file system.
#[derive(Debug)]
pub struct DirLock {
    _dir: File,
}

// === impl DirLock ===

impl DirLock {
    /// Locks `dir`; an error of kind `WouldBlock` if another process has it.
    pub fn try_acquire(dir: &Path) -> io::Result<Self> {
        let file = Self::open(dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _dir: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process; stop it first", dir.display()),
            )),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Locks `dir`, waiting for whoever has it. Blocks the thread.
    pub fn acquire(dir: &Path) -> io::Result<Self> {
        let file = Self::open(dir)?;
        file.lock()?;
        Ok(Self { _dir: file })
    }

    fn open(dir: &Path) -> io::Result<File> {
        let file = File::open(dir)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("{} is not a directory", dir.display()),
            ));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::try_acquire(dir.path()).unwrap();
        let error = DirLock::try_acquire(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        DirLock::try_acquire(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn acquire_waits() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| DirLock::acquire(dir.path()).unwrap());
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap();
        });
    }

    #[test]
    fn a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DirLock::try_acquire(file.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
