//! The lines of `/proc/<pid>/mountinfo` (proc(5)).

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where, seen from the process's root.
    pub mount_point: PathBuf,
    /// The file system's type, such as `tmpfs`.
    pub fs_type: String,
    /// What was mounted; for ours the driver's name.
    pub source: String,
    /// Options of this mount, separated by commas.
    pub options: String,
    /// Options of the file system, separated by commas.
    pub super_options: String,
}

// === impl MountEntry ===

impl MountEntry {
    /// Parses a whole mountinfo file. Lines that are not understood are left out.
    pub fn parse_all(mountinfo: &[u8]) -> Vec<Self> {
        mountinfo.split(|byte| *byte == b'\n').filter_map(Self::parse).collect()
    }

    /// `36 35 98:0 /root /mnt/point rw,noatime shared:1 … - ext3 /dev/root rw,errors=continue`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_point = fields.nth(4)?;
        let options = fields.next()?;
        // Optional fields, as many as there are, end with a lone dash.
        fields.find(|field| *field == b"-")?;
        let fs_type = fields.next()?;
        let source = fields.next()?;
        let super_options = fields.next().unwrap_or_default();
        Some(Self {
            mount_point: PathBuf::from(OsString::from_vec(unescape(mount_point))),
            fs_type: text(fs_type),
            source: text(source),
            options: text(options),
            super_options: text(super_options),
        })
    }

    /// Whether this is a tmpfs whose source is `source`: only such a mount is the driver's.
    pub fn is_tmpfs_of(&self, source: &str) -> bool {
        self.fs_type == "tmpfs" && self.source == source
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Undoes the kernel's escapes of space, tab, newline, backslash and `#`: `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let Some((digits @ [b'0'..=b'3', b'0'..=b'7', b'0'..=b'7'], tail)) =
                tail.split_first_chunk::<3>()
        {
            out.push(digits.iter().fold(0, |n, d| (n << 3) | (d - b'0')));
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_each_kind_of_line() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n\
            40 22 0:35 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount rw,nosuid,nodev,noexec,relatime shared:3 master:9 - tmpfs csi.svid.dev rw,seclabel,size=4096k,noswap\n\
            41 22 0:36 / /a\\040b\\134c\\011d rw - tmpfs none rw\n\
            42 22 0:37 / /no-optional ro - proc proc rw\n\
            garbage\n\
            43 22 0:38 / /cut rw\n";
        let mounts = MountEntry::parse_all(text);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[0].source, "/dev/vda");
        assert_eq!(mounts[0].super_options, "rw,errors=remount-ro");
        assert!(mounts[1].is_tmpfs_of("csi.svid.dev"));
        assert!(!mounts[1].is_tmpfs_of("other.example"));
        assert!(mounts[1].options.contains("noexec"));
        assert_eq!(mounts[2].mount_point, PathBuf::from("/a b\\c\td"));
        assert_eq!(mounts[3].fs_type, "proc");
    }

    #[test]
    fn a_mount_point_that_is_not_utf8_survives() {
        let mounts = MountEntry::parse_all(b"1 1 0:1 / /\xff rw - tmpfs x rw");
        assert_eq!(mounts[0].mount_point.as_os_str().as_encoded_bytes(), b"/\xff");
    }

    proptest! {
        #[test]
        fn escaping_like_the_kernel_is_undone(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut escaped = Vec::new();
            for &byte in &bytes {
                if b" \t\n\\#".contains(&byte) {
                    escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes());
                } else {
                    escaped.push(byte);
                }
            }
            prop_assert_eq!(unescape(&escaped), bytes);
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            MountEntry::parse_all(&bytes);
        }
    }
}
