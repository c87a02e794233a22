//! A set of files that appears as one.

use std::{fmt, io};

use zeroize::Zeroizing;

use super::tree::{check_component, invalid_input};

/// Files by relative path (`tls.crt`, `federated/example.org.pem`), no two alike.
#[derive(Clone, Default)]
pub struct FileSet {
    /// Path and content; content may be a private key.
    pub files: Vec<(String, Zeroizing<Vec<u8>>)>,
}

/// Who may read a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Owner of files and directories; root if unset.
    pub uid: Option<u32>,
    /// Their group; root if unset.
    pub gid: Option<u32>,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
}

// === impl Ownership ===

impl Ownership {
    /// Permission bits of a socket: write, which is what connect(2) asks for, wherever files have
    /// read.
    pub fn socket_mode(&self) -> u32 {
        let read = self.file_mode & 0o444;
        read | (read >> 1)
    }
}

// === impl FileSet ===

impl FileSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. Whether the set is legal is checked when it is written.
    pub fn insert(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.files.push((path.into(), Zeroizing::new(content.into())));
    }

    /// A file's content.
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.iter().find(|(name, _)| name == path).map(|(_, content)| content.as_slice())
    }

    /// The paths in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(path, _)| path.as_str())
    }

    /// Every part of a path is a plain name, and none at the top begins with `..`, which is how
    /// the writer's own names begin.
    pub(super) fn check(&self) -> io::Result<()> {
        for path in self.paths() {
            for part in path.split('/') {
                check_component(part.as_ref())?;
            }
            if path.starts_with("..") || path == ".svid" || path.starts_with(".svid/") {
                return Err(invalid_input(format!(
                    "{path:?} is a name that the volume itself needs"
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.paths()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_only() {
        // Invariant 1: no key in `Debug`.
        let mut set = FileSet::new();
        set.insert("tls.key", "SECRET");
        assert_eq!(format!("{set:?}"), r#"{"tls.key"}"#);
        assert_eq!(set.get("tls.key"), Some(&b"SECRET"[..]));
    }

    #[test]
    fn names_that_could_leave_the_set_are_refused() {
        for bad in [
            "", "/a", "a/", "a//b", "../a", "a/../b", "..data", "..1", "..", ".", ".svid",
            ".svid/x", "a\0",
        ] {
            let mut set = FileSet::new();
            set.insert(bad, "");
            assert!(set.check().is_err(), "{bad:?}");
        }
        for good in ["a", ".a", "a/b", "a/..b", ".svidx", "a b"] {
            let mut set = FileSet::new();
            set.insert(good, "");
            assert!(set.check().is_ok(), "{good:?}");
        }
    }
}
