//! Files of what was fetched: each appears whole, with its permissions, or not at all.

use std::{fs::Permissions, io::Write, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};

/// Nobody but the owner.
pub(super) const PRIVATE: u32 = 0o600;
/// Certificates are no secret.
pub(super) const PUBLIC: u32 = 0o644;

/// Writes `directory/name`, in place of any before.
pub(super) fn write(directory: &Path, name: &str, content: &str, mode: u32) -> Result<()> {
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix(".svid-csi-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory)?;
        // Whatever the umask.
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        file.persist(directory.join(name)).map_err(|error| error.error)
    };
    write().with_context(|| format!("write {name} to {}", directory.display()))?;
    Ok(())
}
