//! The CA's files: `tls.crt`, `tls.key` and, for an intermediate, `ca.crt`, as in a mounted
//! Secret of type `kubernetes.io/tls`. Beside them `jwt.key`, which signs JWT-SVIDs.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use zeroize::Zeroizing;

use crate::{
    id::TrustDomain,
    jose::{JwtKey, JwtKeyAlgorithm, JwtKeyError},
    pki::{Authority, AuthorityError, KeyAlgorithm, PrivateKey},
    sys::{DirLock, effective_uid},
};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";
const JWT_KEY: &str = "jwt.key";
const MAX_FILE: u64 = 1 << 20;
/// In a volume made by kubelet, the link to the files of now.
const DATA: &str = "..data";
/// More swaps during a single read are no accident.
const SWAPS: usize = 3;
/// How the names of files begin that are not whole yet.
const NEW: &str = ".new-";

/// A CA that is made here lives this long: nobody is there to renew it.
pub(super) const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A directory that holds a CA.
#[derive(Clone, Debug)]
pub(super) struct CaDirectory {
    path: PathBuf,
    trust_domain: TrustDomain,
}

/// The files as they are on disk now, to tell whether they changed.
#[derive(PartialEq, Eq)]
pub(super) struct CaFiles {
    certificate: String,
    key: Zeroizing<String>,
    roots: Option<String>,
}

/// Why a CA directory can't be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is no CA.
    #[error(
        "{0} holds no CA: put tls.crt and tls.key there (in a cluster: create the Secret that is \
         mounted there), or pass --ca-create to make one"
    )]
    Missing(PathBuf),
    /// One of the two files is missing.
    #[error("{0} is missing although its counterpart is there: restore it, or move the other away")]
    Incomplete(PathBuf),
    /// The key can be read by others.
    #[error(
        "{path} has mode {mode:04o}: run `chmod 0600` on it (for a Secret set `defaultMode: 0400`)"
    )]
    Mode {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key belongs to somebody else.
    #[error(
        "{path} belongs to uid {owner}: it must belong to root or to the driver's own uid {own}"
    )]
    Owner {
        /// The key's file.
        path: PathBuf,
        /// Whom it belongs to.
        owner: u32,
        /// Whom it should belong to.
        own: u32,
    },
    /// It isn't a plain file, or it is far too large for what it should be.
    #[error("{0} is not a plain file of at most 1 MiB")]
    NotAFile(PathBuf),
    /// What is in the files can't serve.
    #[error("the CA in {path} can't be used: {source}")]
    Unusable {
        /// The CA directory.
        path: PathBuf,
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// The CA could not be made.
    #[error("making a CA in {path} failed: {source}")]
    Create {
        /// The CA directory.
        path: PathBuf,
        /// What went wrong.
        source: AuthorityError,
    },
    /// What is in the file can't sign JWT-SVIDs.
    #[error("{path} can't be used: {source}")]
    JwtKey {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: JwtKeyError,
    },
    /// It was there and is not any more.
    #[error("{0} is gone: put it back, or another in its place")]
    JwtKeyGone(PathBuf),
    /// The operating system refused.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

// === impl CaDirectory ===

impl CaDirectory {
    pub(super) fn new(path: PathBuf, trust_domain: TrustDomain) -> Self {
        Self { path, trust_domain }
    }

    /// Reads the files. Symlinks are followed; mode and owner are judged on what they lead to.
    pub(super) fn read(&self) -> Result<CaFiles, CaError> {
        // kubelet swaps a Secret's files all at once by this link: never half of each.
        let version = || fs::read_link(self.path.join(DATA)).ok();
        for _ in 0..SWAPS {
            let before = version();
            let read = self.read_files();
            if version() == before {
                return read;
            }
        }
        Err(self.io("read", io::Error::other("it changes all the time")))
    }

    fn read_files(&self) -> Result<CaFiles, CaError> {
        let key = self.read_one(KEY, true)?;
        let certificate = self.read_one(CERTIFICATE, false)?;
        match (certificate, key) {
            (None, None) => Err(CaError::Missing(self.path.clone())),
            (None, Some(_)) => Err(CaError::Incomplete(self.path.join(CERTIFICATE))),
            (Some(_), None) => Err(CaError::Incomplete(self.path.join(KEY))),
            (Some(certificate), Some(key)) => Ok(CaFiles {
                certificate: String::clone(&certificate),
                key,
                roots: self.read_one(ROOTS, false)?.map(|roots| String::clone(&roots)),
            }),
        }
    }

    /// Makes a CA of the files.
    pub(super) fn load(&self, files: &CaFiles, now: SystemTime) -> Result<Authority, CaError> {
        let CaFiles { certificate, key, roots } = files;
        Authority::from_pem(&self.trust_domain, certificate, key, roots.as_deref(), now)
            .map_err(|source| CaError::Unusable { path: self.path.clone(), source })
    }

    /// Makes a self-signed CA unless one is there. Of several processes that do so at once, one
    /// makes it and the others find it.
    pub(super) fn create_if_missing(&self, now: SystemTime) -> Result<(), CaError> {
        let _lock = self.make()?;
        match self.read() {
            Ok(_) => return Ok(()),
            Err(CaError::Missing(_)) => {}
            // The key of a CA whose making was interrupted: nothing can have been signed with it.
            Err(CaError::Incomplete(path)) if path.ends_with(CERTIFICATE) => {}
            Err(error) => return Err(error),
        }
        let failed = |source| CaError::Create { path: self.path.clone(), source };
        self.sweep().map_err(|source| self.io("tidy", source))?;
        let key = match self.read_one(KEY, true)? {
            Some(pem) => PrivateKey::from_pem(&pem).map_err(AuthorityError::Key),
            None => PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(AuthorityError::Crypto),
        };
        let key = key.map_err(failed)?;
        let authority =
            Authority::self_signed(&self.trust_domain, key, LIFETIME, now).map_err(failed)?;
        // The key comes first: a certificate without it would look like a loss.
        self.write(KEY, authority.key_pem().as_bytes(), 0o600)?;
        self.write(CERTIFICATE, authority.certificate_pem().as_bytes(), 0o644)?;
        self.sync()
    }

    /// Makes a JWT key unless a file of that name is there, under the same lock.
    pub(super) fn create_jwt_key_if_missing(
        &self,
        algorithm: JwtKeyAlgorithm,
    ) -> Result<(), CaError> {
        let path = self.jwt_key_path();
        if fs::symlink_metadata(&path).is_ok() {
            return Ok(());
        }
        let _lock = self.make()?;
        if fs::symlink_metadata(&path).is_ok() {
            return Ok(());
        }
        self.sweep().map_err(|source| self.io("tidy", source))?;
        let failed = |source| CaError::JwtKey { path: path.clone(), source };
        let key = JwtKey::generate(algorithm).map_err(failed)?;
        self.write(JWT_KEY, key.to_pem().map_err(failed)?.as_bytes(), 0o600)?;
        self.sync()
    }

    /// Reads the JWT key's file; `None` if there is none.
    pub(super) fn read_jwt_key(&self) -> Result<Option<Zeroizing<String>>, CaError> {
        self.read_one(JWT_KEY, true)
    }

    /// Makes a key of the file.
    pub(super) fn load_jwt_key(&self, file: &str) -> Result<JwtKey, CaError> {
        JwtKey::from_pem(file)
            .map_err(|source| CaError::JwtKey { path: self.jwt_key_path(), source })
    }

    pub(super) fn jwt_key_path(&self) -> PathBuf {
        self.path.join(JWT_KEY)
    }

    /// Makes the directory and locks it.
    fn make(&self) -> Result<DirLock, CaError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|source| self.io("create", source))?;
        DirLock::acquire(&self.path).map_err(|source| self.io("lock", source))
    }

    fn sync(&self) -> Result<(), CaError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| self.io("write", source))
    }

    /// Removes what an interrupted making left: it may be a key.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn read_one(&self, name: &str, private: bool) -> Result<Option<Zeroizing<String>>, CaError> {
        let path = self.path.join(name);
        let io = |source| CaError::Io { doing: "read", path: path.clone(), source };
        // A FIFO would block the open for ever.
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
            Ok(metadata) if !metadata.is_file() => return Err(CaError::NotAFile(path)),
            Ok(_) => {}
        }
        let file = File::open(&path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(CaError::NotAFile(path));
        }
        if private {
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & !0o600 != 0 {
                return Err(CaError::Mode { path, mode });
            }
            let (owner, own) = (metadata.uid(), effective_uid());
            if owner != 0 && owner != own {
                return Err(CaError::Owner { path, owner, own });
            }
        }
        // Sized once, so that growing leaves no copy of a key behind in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(metadata.len() as usize + 1));
        file.take(MAX_FILE).read_to_string(&mut text).map_err(io)?;
        Ok(Some(text))
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<(), CaError> {
        let write = || {
            let mut file = tempfile::Builder::new()
                .prefix(NEW)
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(self.path.join(name))?;
            Ok(())
        };
        write().map_err(|source: io::Error| CaError::Io {
            doing: "write",
            path: self.path.join(name),
            source,
        })
    }

    fn io(&self, doing: &'static str, source: io::Error) -> CaError {
        CaError::Io { doing, path: self.path.clone(), source }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
