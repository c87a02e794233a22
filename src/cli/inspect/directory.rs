//! Reads a volume's directory, as far as whoever asks may.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    content::{Content, Fault},
    facts::{Entry, Mount, Owner, Set},
    moment::Moment,
};
use crate::{
    sys::{LinuxMounter, MountEntry, Mounter, RegularFile},
    volume::{RECORD_FILE, VolumeRecord},
};

/// Far above what any file of ours can become.
pub(super) const MAX_FILE: usize = 1 << 20;
/// More files than a volume has inodes.
const MAX_FILES: usize = 2048;

/// A directory that is or was a volume.
pub(super) struct Directory {
    pub(super) owner: Owner,
    pub(super) record: Record,
    pub(super) mount: Option<Mount>,
    pub(super) set: Result<(Set, Owner), io::Error>,
    pub(super) files: Vec<SetFile>,
}

/// `.svid/record.json`.
pub(super) enum Record {
    Read(Box<VolumeRecord>),
    /// The driver's directory is for root only.
    Forbidden,
    Missing,
    Unusable(String),
}

/// A file of the current set.
pub(super) struct SetFile {
    pub(super) entry: Entry,
    pub(super) content: Result<Content, FileError>,
}

/// Why a file's content is not known.
pub(super) enum FileError {
    Io(io::Error),
    Fault(Fault),
}

// === impl Directory ===

impl Directory {
    /// Reads it; `None` if nothing tells that it is a volume.
    pub(super) fn read(path: &Path, driver: &str) -> io::Result<Option<Self>> {
        let owner = Owner::from(&fs::metadata(path)?);
        // `..data` is followed once, so that all files are of one set.
        let link = fs::read_link(path.join("..data"));
        let record = Record::read(path);
        let driver = match &record {
            Record::Read(record) => record.driver.clone(),
            _ => driver.to_owned(),
        };
        let mount = mount_of(path, &driver);
        let ours = mount.as_ref().is_some_and(|mount| mount.ours);
        let known = link.is_ok() || ours || !matches!(record, Record::Missing);
        if !known {
            return match link {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
                _ => Ok(None),
            };
        }
        let (set, files) = match link.and_then(|target| read_set(path, &target)) {
            Ok((set, files)) => (Ok(set), files),
            Err(error) => (Err(error), Vec::new()),
        };
        Ok(Some(Self { owner, record, mount, set, files }))
    }

    /// A file by its path in the set.
    pub(super) fn file(&self, name: &str) -> Option<&SetFile> {
        self.files.iter().find(|file| file.entry.name == name)
    }
}

fn read_set(volume: &Path, target: &Path) -> io::Result<((Set, Owner), Vec<SetFile>)> {
    let dir = volume.join(target);
    let owner = Owner::from(&fs::metadata(&dir)?);
    let written = fs::symlink_metadata(volume.join("..data"))?.modified()?;
    let sequence = target.to_str().and_then(|name| name.strip_prefix(".."));
    let set = Set {
        sequence: sequence.and_then(|number| number.parse().ok()),
        written_at: Moment(written),
    };
    let mut files = Vec::new();
    for path in list(&dir)? {
        if path.is_dir() {
            // Only `federated` is a directory of ours.
            for inner in list(&path)? {
                files.extend(SetFile::read(&dir, &inner));
            }
        } else {
            files.extend(SetFile::read(&dir, &path));
        }
    }
    files.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    Ok(((set, owner), files))
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.take(MAX_FILES).map(|entry| Ok(entry?.path())).collect()
}

/// The mount that the directory is on: the last one on the nearest path above it.
fn mount_of(asked: &Path, driver: &str) -> Option<Mount> {
    let path = fs::canonicalize(asked).ok()?;
    let mounts = LinuxMounter.mounts().ok()?;
    let depth = |mount: &MountEntry| mount.mount_point.components().count();
    let nearest = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        // The last of those that are equal.
        .max_by_key(|mount| depth(mount))?;
    // Of another mount namespace, as by `/proc/1/root/…`, or hidden by another mount.
    if fs::metadata(&nearest.mount_point).ok()?.dev() != fs::metadata(asked).ok()?.dev() {
        return None;
    }
    Some(Mount {
        fs_type: nearest.fs_type.clone(),
        source: nearest.source.clone(),
        ours: nearest.is_tmpfs_of(driver),
        noswap: nearest.super_options.split(',').any(|o| o == "noswap"),
    })
}

// === impl Record ===

impl Record {
    fn read(volume: &Path) -> Self {
        let path = volume.join(".svid").join(RECORD_FILE);
        match RegularFile::read(&path, VolumeRecord::MAX_SIZE) {
            Ok(file) => match VolumeRecord::from_json(&file.content) {
                Ok(record) => Self::Read(Box::new(record)),
                Err(error) => Self::Unusable(error.to_string()),
            },
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied => Self::Forbidden,
                io::ErrorKind::NotFound => Self::Missing,
                _ => Self::Unusable(format!("{RECORD_FILE}: {error}")),
            },
        }
    }
}

// === impl SetFile ===

impl SetFile {
    /// `None` if it is gone, as with a set that was swapped out long ago.
    fn read(set: &Path, path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path);
        if matches!(&metadata, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return None;
        }
        let name = path.strip_prefix(set).map_or(path.as_os_str(), Path::as_os_str);
        let entry = |metadata: Option<&fs::Metadata>| Entry {
            name: display(name),
            size: metadata.map_or(0, fs::Metadata::len),
            owner: metadata.map(Owner::from).unwrap_or_default(),
        };
        Some(match RegularFile::read(path, MAX_FILE) {
            Ok(file) => Self {
                entry: entry(Some(&file.metadata)),
                content: Content::parse(&file.content).map_err(FileError::Fault),
            },
            Err(error) => {
                Self { entry: entry(metadata.as_ref().ok()), content: Err(FileError::Io(error)) }
            }
        })
    }
}

fn display(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
