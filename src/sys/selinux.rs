//! Whether the node labels its files.

use super::mountinfo::MountEntry;

/// The label that lets containers read a volume (reference: container-selinux).
pub const CONTAINER_FILE_CONTEXT: &str = "system_u:object_r:container_file_t:s0";

/// Whether SELinux is on: some mount shows `seclabel`, which is also kubelet's test. A container's
/// own `/sys` has no selinuxfs to ask.
pub fn is_enabled(mounts: &[MountEntry]) -> bool {
    mounts.iter().any(|mount| {
        [&mount.options, &mount.super_options]
            .iter()
            .any(|options| options.split(',').any(|option| option == "seclabel"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seclabel_on_any_mount_means_selinux() {
        for (line, expected) in [
            ("1 1 0:1 / / rw - ext4 /dev/a rw,seclabel,x", true),
            ("1 1 0:1 / / rw,seclabel - ext4 /dev/a rw", true),
            ("1 1 0:1 / / rw - ext4 /dev/a rw", false),
            ("1 1 0:1 / /seclabel rw - ext4 seclabel rw,noseclabel", false),
        ] {
            let mounts = MountEntry::parse_all(line.as_bytes());
            assert_eq!(is_enabled(&mounts), expected, "{line}");
        }
        assert!(!is_enabled(&[]));
    }
}
