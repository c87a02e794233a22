//! Kubelet's directory and the target paths in it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

use super::target::Target;
use crate::class::Class;

/// The longest path the kernel takes, with its final NUL.
const PATH_MAX: usize = 4096;

/// The longest file name.
const NAME_MAX: usize = 255;

/// Kubelet's root directory, held open.
#[derive(Debug)]
pub struct KubeletDir {
    root: String,
    /// The way it was given, if that is not the canonical one: kubelet may write it so too.
    spelling: Option<String>,
    fd: OwnedFd,
}

/// A target path that is legal, whether or not it exists: `pods/<uid>/volumes/kubernetes.io~csi/
/// <volume>/<name>` beneath kubelet's directory. Two spellings of one path are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetPath {
    path: String,
    /// Where the part beneath kubelet's directory begins.
    relative_at: usize,
    /// The pod's UID, as kubelet wrote it into the path.
    pub pod_uid: String,
    /// The volume's name in the pod's spec.
    pub volume_name: String,
}

/// Why a target path is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing there.
    #[error("target path is missing; kubelet sets it")]
    Empty,
    /// Over the kernel's limits.
    #[error("target path is too long: a path has at most 4095 bytes and each part of it 255")]
    TooLong,
    /// Relative.
    #[error("target path {0:?} is not absolute")]
    NotAbsolute(String),
    /// `.`, `..`, `//`, a slash at the end or a control character.
    #[error(
        "target path {0:?} is not normalised: it must have no `.`, `..`, empty part, final slash or control character"
    )]
    NotNormalised(String),
    /// Not kubelet's.
    #[error(
        "target path {path:?} is not a CSI volume of {root}: it must be {root}/pods/<pod UID>/volumes/kubernetes.io~csi/<volume>/mount; \
         if kubelet's root directory is another, set --kubelet-dir"
    )]
    Foreign {
        /// What was asked for.
        path: String,
        /// Kubelet's directory, as configured.
        root: String,
    },
}

// === impl KubeletDir ===

impl KubeletDir {
    /// Opens kubelet's root directory; symlinks on the way to it are fine.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = path.canonicalize()?;
        let not_utf8 = |path: &Path| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8", path.display()))
        };
        let spelled = path.to_str().ok_or_else(|| not_utf8(path))?;
        let spelled = spelled.trim_end_matches('/');
        let root = root.to_str().ok_or_else(|| not_utf8(&root))?;
        let root = root.trim_end_matches('/').to_owned();
        let fd = open(
            if root.is_empty() { "/" } else { root.as_str() },
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            spelling: (spelled != root && spelled.starts_with('/')).then(|| spelled.to_owned()),
            root,
            fd,
        })
    }

    /// The canonical path.
    pub fn root(&self) -> &Path {
        Path::new(if self.root.is_empty() { "/" } else { &self.root })
    }

    /// Checks the form of a target path; asks the file system nothing.
    pub fn parse_target(&self, path: &str) -> Result<TargetPath, TargetError> {
        parse(&self.root, self.spelling.as_deref(), path)
    }

    /// The target at a path beneath this directory, as [`TargetPath::relative`] gives it.
    pub fn parse_relative(&self, relative: &str) -> Result<TargetPath, TargetError> {
        parse(&self.root, None, &format!("{}/{relative}", self.root))
    }

    /// Opens the directory in which the target is, as kubelet made it. `NotFound` if it is gone;
    /// an error if any part of the way is a symlink.
    pub fn open_parent(&self, target: &TargetPath) -> io::Result<Target> {
        let parent = match target.relative().rsplit_once('/') {
            Some((parent, _)) => parent,
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
        let fd = openat2(&self.fd, parent, how)?;
        Ok(Target::new(fd, target.clone()))
    }
}

impl AsFd for KubeletDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn parse(root: &str, spelling: Option<&str>, path: &str) -> Result<TargetPath, TargetError> {
    if path.is_empty() {
        return Err(TargetError::Empty);
    }
    if path.len() >= PATH_MAX {
        return Err(TargetError::TooLong);
    }
    let Some(parts) = path.strip_prefix('/') else {
        return Err(TargetError::NotAbsolute(path.to_owned()));
    };
    for part in parts.split('/') {
        if part.len() > NAME_MAX {
            return Err(TargetError::TooLong);
        }
        if matches!(part, "" | "." | "..") || part.chars().any(char::is_control) {
            return Err(TargetError::NotNormalised(path.to_owned()));
        }
    }
    let relative = [Some(root), spelling]
        .into_iter()
        .flatten()
        .find_map(|root| path.strip_prefix(root)?.strip_prefix('/'));
    let parts: Vec<&str> = relative.unwrap_or_default().split('/').collect();
    let (Some(relative), ["pods", pod_uid, "volumes", "kubernetes.io~csi", volume_name, _]) =
        (relative, parts.as_slice())
    else {
        return Err(TargetError::Foreign {
            path: path.to_owned(),
            root: if root.is_empty() { "/" } else { root }.to_owned(),
        });
    };
    // The canonical root may be longer than the spelling that was checked above.
    if root.len() + 1 + relative.len() >= PATH_MAX {
        return Err(TargetError::TooLong);
    }
    Ok(TargetPath {
        path: format!("{root}/{relative}"),
        relative_at: root.len() + 1,
        pod_uid: (*pod_uid).to_owned(),
        volume_name: (*volume_name).to_owned(),
    })
}

// === impl TargetPath ===

impl TargetPath {
    /// The canonical absolute path, as mountinfo shows it.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// The path beneath kubelet's directory: `pods/…`.
    pub fn relative(&self) -> &str {
        self.path.get(self.relative_at..).unwrap_or_default()
    }

    /// The last part: `mount`, when it is kubelet's.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for TargetPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}

// === impl TargetError ===

impl TargetError {
    /// Always the request's fault.
    pub fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::PathBuf};

    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = "/var/lib/kubelet";
    const GOOD: &str = "pods/9f2c-uid/volumes/kubernetes.io~csi/svid/mount";

    #[test]
    fn kubelets_path_is_taken_apart() {
        let target = parse(ROOT, None, &format!("{ROOT}/{GOOD}")).unwrap();
        assert_eq!(target.pod_uid, "9f2c-uid");
        assert_eq!(target.volume_name, "svid");
        assert_eq!(target.name(), "mount");
        assert_eq!(target.relative(), GOOD);
        assert_eq!(target.path(), Path::new(ROOT).join(GOOD));
        let other = parse("", None, &format!("/{GOOD}")).unwrap();
        assert_eq!((other.relative(), other.path()), (GOOD, Path::new("/").join(GOOD).as_path()));
    }

    #[test]
    fn foreign_and_traversing_paths_are_refused() {
        let long = "x".repeat(256);
        for bad in [
            "".into(),
            GOOD.into(),
            "/".into(),
            "/etc".into(),
            format!("/var/lib/kubelet2/{GOOD}"),
            format!("/var/lib/{GOOD}"),
            format!("{ROOT}//{GOOD}"),
            format!("{ROOT}/./{GOOD}"),
            format!("{ROOT}/{GOOD}/"),
            format!("{ROOT}/{GOOD}/deeper"),
            format!("{ROOT}/{GOOD}/.."),
            format!("{ROOT}/pods/../{GOOD}"),
            format!("{ROOT}/pods/u/volumes/kubernetes.io~csi/../mount"),
            format!("{ROOT}/pods/../volumes/kubernetes.io~csi/svid/mount"),
            format!("{ROOT}/pods/u/volumes/kubernetes.io~csi/svid"),
            format!("{ROOT}/pods/u/volumes/kubernetes.io~empty-dir/svid/mount"),
            format!("{ROOT}/pods/u/volume-subpaths/kubernetes.io~csi/svid/mount"),
            format!("{ROOT}/plugins/u/volumes/kubernetes.io~csi/svid/mount"),
            format!("{ROOT}/pods/u/volumes/kubernetes.io~csi/sv\nid/mount"),
            format!("{ROOT}/pods/u/volumes/kubernetes.io~csi/sv\0id/mount"),
            format!("{ROOT}/pods/{long}/volumes/kubernetes.io~csi/svid/mount"),
            format!("{ROOT}/{}", "a/".repeat(3000)),
        ] {
            let error = parse(ROOT, None, &bad).unwrap_err();
            assert_eq!(error.class(), Class::Invalid, "{bad}");
        }
    }

    #[test]
    fn both_spellings_of_the_root_mean_one_target() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("data");
        std::fs::create_dir_all(real.join(GOOD)).unwrap();
        let link = dir.path().join("kubelet");
        symlink(&real, &link).unwrap();
        let kubelet = KubeletDir::open(&dir.path().join("kubelet/")).unwrap();
        assert_eq!(kubelet.root(), real);
        let spelled = kubelet.parse_target(&format!("{}/{GOOD}", link.display())).unwrap();
        let canonical = kubelet.parse_target(&format!("{}/{GOOD}", real.display())).unwrap();
        assert_eq!(spelled, canonical);
        assert_eq!(spelled, kubelet.parse_relative(GOOD).unwrap());
        kubelet.parse_relative(&format!("../{GOOD}")).unwrap_err();
        kubelet.open_parent(&spelled).unwrap();
    }

    #[test]
    fn a_symlink_anywhere_on_the_way_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outside.path().join(GOOD)).unwrap();
        let parts: Vec<&str> = GOOD.split('/').collect();
        for depth in 0..parts.len() - 1 {
            let dir = tempfile::tempdir().unwrap();
            let prefix: PathBuf = parts[..depth].iter().collect();
            let upto: PathBuf = parts[..=depth].iter().collect();
            std::fs::create_dir_all(dir.path().join(prefix)).unwrap();
            symlink(outside.path().join(&upto), dir.path().join(&upto)).unwrap();
            let kubelet = KubeletDir::open(dir.path()).unwrap();
            let target = kubelet.parse_relative(GOOD).unwrap();
            let error = kubelet.open_parent(&target).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{}", upto.display());
        }
    }

    #[test]
    fn a_parent_that_is_gone_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let kubelet = KubeletDir::open(dir.path()).unwrap();
        let target = kubelet.parse_relative(GOOD).unwrap();
        let error = kubelet.open_parent(&target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_beneath_the_root(
            path in prop_oneof![
                any::<String>(),
                proptest::collection::vec("[a-z.~]{0,4}|pods|volumes|kubernetes.io~csi|\\.\\.", 0..9)
                    .prop_map(|parts| format!("{ROOT}/{}", parts.join("/"))),
                ("[^/]{0,9}", "[^/]{0,9}", "[^/]{0,9}").prop_map(|(uid, volume, name)| format!(
                    "{ROOT}/pods/{uid}/volumes/kubernetes.io~csi/{volume}/{name}"
                )),
            ]
        ) {
            if let Ok(target) = parse(ROOT, None, &path) {
                prop_assert_eq!(target.path().to_str(), Some(path.as_str()));
                prop_assert!(target.path().starts_with(ROOT));
                prop_assert_eq!(
                    target.path().strip_prefix(ROOT).unwrap().components()
                        .filter(|c| matches!(c, std::path::Component::Normal(_))).count(),
                    6
                );
            }
        }
    }
}
