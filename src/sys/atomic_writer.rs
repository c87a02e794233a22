//! Swapping a whole set of files at once, by kubelet's `..data` protocol.
//!
//! ```text
//! tls.crt    -> ..data/tls.crt     one link for each top-level name
//! ..data     -> ..7                replaced by rename(2): the swap
//! ..7/tls.crt
//! ..6/tls.crt                      the set before: a reader may still be in it
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, SystemTime},
};

use nix::{
    dir::Type,
    errno::Errno,
    fcntl::{AtFlags, readlinkat, renameat},
    sys::stat::{Mode, fchmod, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat},
};
use zeroize::Zeroizing;

use super::{
    current_set::{CurrentSet, DATA, parse_set_name, set_name},
    file_set::{FileSet, Ownership},
    tree,
    volume_dir::VolumeDir,
};

/// The link that is renamed over `..data`.
const DATA_TEMP: &str = "..data_tmp";

/// The link that is renamed over a top-level name that leads elsewhere.
const LINK_TEMP: &str = "..link_tmp";

/// How long a set is kept after it ceased to be the current one, if there is room for a third.
const GRACE: Duration = Duration::from_secs(10);

/// Writes sets of files into a volume. A volume has one writer at a time.
#[derive(Clone, Copy, Debug)]
pub struct AtomicWriter<'a>(&'a VolumeDir);

/// The volume's top level, as it is listed.
#[derive(Debug, Default)]
struct Listing {
    sets: BTreeSet<u64>,
    current: Option<u64>,
    /// There is a `..data`, but it leads to no set.
    broken: bool,
    /// Names that do not begin with `..`, and whether they are symlinks.
    names: BTreeMap<OsString, bool>,
    temps: Vec<OsString>,
}

// === impl AtomicWriter ===

impl<'a> AtomicWriter<'a> {
    /// A writer for this volume.
    pub fn new(volume: &'a VolumeDir) -> Self {
        Self(volume)
    }

    /// Replaces the current set by `set`, all of it or, if this fails, none.
    ///
    /// The set before stays, and the one before that if it was current less than ten seconds
    /// ago: readers who resolved `..data` then are still reading it.
    pub fn write(&self, set: &FileSet, own: &Ownership, now: SystemTime) -> io::Result<()> {
        set.check()?;
        let root = self.root();
        let before = Listing::read(root)?;
        let sequence = before.sets.last().map_or(Some(1), |last| last.checked_add(1));
        let sequence = sequence.ok_or_else(|| io::Error::other("set numbers are used up"))?;
        let previous_since = before.current.and_then(|_| changed_at(root, DATA).ok());

        let mut links = Vec::new();
        let swapped = before
            .remove_temps(root)
            .and_then(|()| fill(root, sequence, set, own))
            .and_then(|()| link(root, &before, set, &mut links))
            .and_then(|()| swap(root, sequence));
        if let Err(error) = swapped {
            // What the pod sees is as before; what cannot be removed now is swept later.
            let _ = unlinkat(root, DATA_TEMP, UnlinkatFlags::NoRemoveDir);
            for name in links {
                let _ = unlinkat(root, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
            }
            let _ = tree::remove(root, &set_name(sequence));
            return Err(error);
        }

        // From here on the new set is live, so nothing is a failure of the write any more.
        let top: BTreeSet<&OsStr> = top_level(set);
        remove_links(root, before.names, |name| top.contains(name));
        let mut keep: BTreeSet<u64> =
            [Some(sequence), before.current].into_iter().flatten().collect();
        // A clock that went back counts as "just now".
        let recent = |since| now.duration_since(since).map_or(true, |past| past < GRACE);
        if let Some(current) = before.current
            && previous_since.is_some_and(recent)
        {
            keep.extend(before.sets.range(..current).next_back());
        }
        remove_sets(root, &before.sets, &keep);
        Ok(())
    }

    /// The current set, for reading several files that belong together.
    pub fn current(&self) -> io::Result<Option<CurrentSet>> {
        CurrentSet::open(self.root())
    }

    /// One file of the current set, of at most `max` bytes.
    pub fn read(&self, path: &str, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        self.current()?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the volume has no files yet"))?
            .read(path, max)
    }

    /// Whether a write ever succeeded here.
    pub fn has_current(&self) -> io::Result<bool> {
        match fstatat(self.0, DATA, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes what a crash may have left: sets that never became current, old sets but the
    /// last, temporary links and private files, links that lead into no set.
    pub fn sweep(&self) -> io::Result<()> {
        let root = self.root();
        let found = Listing::read(root)?;
        found.remove_temps(root)?;
        self.0.sweep_private()?;
        if found.broken {
            // Not our doing: leave all that may be of use.
            return Ok(());
        }
        let mut keep = BTreeSet::new();
        let mut top = Vec::new();
        if let Some(current) = found.current {
            keep.insert(current);
            keep.extend(found.sets.range(..current).next_back());
            if let Some(set) = self.current()? {
                top = set.top_level()?;
            }
        }
        remove_sets(root, &found.sets, &keep);
        remove_links(root, found.names, |name| top.iter().any(|kept| kept == name));
        Ok(())
    }

    /// Empties the volume: `..data`, then keys, then the rest. After a crash half-way there is no
    /// current set, so that nobody takes what is left for a volume in use. What cannot be removed
    /// does not keep the rest, and is the error.
    pub fn clear(&self) -> io::Result<()> {
        let root = self.root();
        let mut names: Vec<OsString> =
            tree::list(root)?.into_iter().map(|(name, _)| name).collect();
        names.sort_by_key(|name| (name != DATA, parse_set_name(name).is_none()));
        let mut result = Ok(());
        for name in names {
            result = result.and(tree::remove(root, &name));
        }
        result
    }

    fn root(&self) -> BorrowedFd<'a> {
        self.0.as_fd()
    }
}

// === impl Listing ===

impl Listing {
    fn read(root: BorrowedFd<'_>) -> io::Result<Self> {
        let mut listing = Self::default();
        let mut data = false;
        for (name, kind) in tree::list(root)? {
            if name == DATA {
                data = true;
            } else if name == DATA_TEMP || name == LINK_TEMP {
                listing.temps.push(name);
            } else if let Some(sequence) = parse_set_name(&name) {
                listing.sets.insert(sequence);
            } else if !name.as_encoded_bytes().starts_with(b"..") {
                listing.names.insert(name, kind == Some(Type::Symlink));
            }
        }
        if data {
            listing.current = readlinkat(root, DATA)
                .ok()
                .and_then(|link| parse_set_name(&link))
                .filter(|sequence| listing.sets.contains(sequence));
            listing.broken = listing.current.is_none();
        }
        Ok(listing)
    }

    fn remove_temps(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        self.temps.iter().try_for_each(|name| tree::remove(root, name))
    }
}

/// Makes the set's directory and all in it.
fn fill(root: BorrowedFd<'_>, sequence: u64, set: &FileSet, own: &Ownership) -> io::Result<()> {
    let name = set_name(sequence);
    let top = make_dir(root, &name)?;
    let mut dirs: BTreeMap<&str, OwnedFd> = BTreeMap::new();
    for (path, content) in &set.files {
        let (parent, file) = path.rsplit_once('/').unwrap_or(("", path));
        for (end, _) in parent.match_indices('/').chain([(parent.len(), "")]) {
            let dir = &parent[..end];
            if !dir.is_empty() && !dirs.contains_key(dir) {
                let (above, name) = dir.rsplit_once('/').unwrap_or(("", dir));
                let above = dirs.get(above).map_or(top.as_fd(), AsFd::as_fd);
                let made = make_dir(above, name.as_ref())?;
                dirs.insert(dir, made);
            }
        }
        let dir = dirs.get(parent).map_or(top.as_fd(), AsFd::as_fd);
        let file = tree::write_new(dir, file.as_ref(), content)?;
        give(file.as_fd(), own, own.file_mode)?;
    }
    // Last, because an owner that is not root may keep a root without capabilities out.
    for dir in dirs.values().rev() {
        give(dir.as_fd(), own, own.dir_mode)?;
    }
    give(top.as_fd(), own, own.dir_mode)
}

fn make_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_bits_truncate(0o700))?;
    tree::open_dir(parent, name)
}

fn give(file: BorrowedFd<'_>, own: &Ownership, mode: u32) -> io::Result<()> {
    if own.uid.is_some() || own.gid.is_some() {
        fchown(file, own.uid.map(Uid::from_raw), own.gid.map(Gid::from_raw))?;
    }
    // Not left to the umask.
    Ok(fchmod(file, Mode::from_bits_truncate(mode))?)
}

fn top_level(set: &FileSet) -> BTreeSet<&OsStr> {
    set.paths().map(|path| OsStr::new(path.split('/').next().unwrap_or(path))).collect()
}

/// Makes the top-level links, before the swap: new ones lead nowhere until then. `made` gets
/// those to be removed if the write fails.
fn link(
    root: BorrowedFd<'_>,
    before: &Listing,
    set: &FileSet,
    made: &mut Vec<OsString>,
) -> io::Result<()> {
    for name in top_level(set) {
        let target = link_target(name);
        match before.names.get(name) {
            None => {
                symlinkat(target.as_os_str(), root, name)?;
                made.push(name.to_owned());
            }
            Some(true) => {
                if readlinkat(root, name)? != target {
                    symlinkat(target.as_os_str(), root, LINK_TEMP)?;
                    renameat(root, LINK_TEMP, root, name)?;
                }
            }
            Some(false) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{name:?} in the volume is not a link of ours"),
                ));
            }
        }
    }
    Ok(())
}

fn link_target(name: &OsStr) -> OsString {
    let mut target = OsString::from(DATA);
    target.push("/");
    target.push(name);
    target
}

fn swap(root: BorrowedFd<'_>, sequence: u64) -> io::Result<()> {
    symlinkat(set_name(sequence).as_os_str(), root, DATA_TEMP)?;
    Ok(renameat(root, DATA_TEMP, root, DATA)?)
}

/// Removes links of ours that lead to no file of the current set, as far as that goes.
fn remove_links(
    root: BorrowedFd<'_>,
    names: BTreeMap<OsString, bool>,
    keep: impl Fn(&OsStr) -> bool,
) {
    for (name, is_link) in names {
        if is_link
            && !keep(&name)
            && readlinkat(root, name.as_os_str()).is_ok_and(|target| target == link_target(&name))
        {
            let _ = unlinkat(root, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Removes sets, as far as that goes: the next write or sweep finds the rest.
fn remove_sets(root: BorrowedFd<'_>, sets: &BTreeSet<u64>, keep: &BTreeSet<u64>) {
    for sequence in sets.difference(keep) {
        let _ = tree::remove(root, &set_name(*sequence));
    }
}

/// When a symlink was renamed to its name: rename sets the time of change.
fn changed_at(root: BorrowedFd<'_>, name: &str) -> io::Result<SystemTime> {
    let stat = fstatat(root, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let seconds = u64::try_from(stat.st_ctime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_ctime_nsec).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests;
