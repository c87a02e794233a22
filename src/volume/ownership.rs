//! Who may read a volume's files.

use super::attribute::SpecError;
use crate::sys::Ownership;

/// The highest uid or gid: the next means "unchanged" to chown(2).
const MAX_ID: u32 = u32::MAX - 1;

/// What attributes and the pod's fsGroup say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: Option<u32>,
    pub(super) fs_group: Option<u32>,
}

// === impl Wishes ===

impl Wishes {
    /// DESIGN.md §4: readable by the owner alone if only he is named, by the group if there is
    /// one, by all of the pod if neither is.
    pub(super) fn ownership(self) -> Ownership {
        let gid = self.gid.or(self.fs_group);
        let file_mode = self.mode.unwrap_or(match (self.uid, gid) {
            (None, None) => 0o444,
            (Some(_), None) => 0o400,
            (_, Some(_)) => 0o440,
        });
        Ownership {
            uid: self.uid,
            gid,
            file_mode,
            // Search wherever there is read, and write for the driver's own sake.
            dir_mode: file_mode | (file_mode >> 2) | 0o200,
        }
    }
}

/// A uid or gid in decimal.
pub(super) fn parse_id(text: &str) -> Option<u32> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// A file mode in octal, read bits only.
pub(super) fn parse_mode(text: &str) -> Result<u32, SpecError> {
    let invalid = |reason: &str| SpecError::invalid("mode", text, reason);
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if !(1..=4).contains(&digits.len()) || !digits.bytes().all(|b| matches!(b, b'0'..=b'7')) {
        return Err(invalid("it must be octal, such as 0440"));
    }
    let mode = digits.bytes().fold(0, |mode, digit| (mode << 3) | u32::from(digit - b'0'));
    if mode & !0o444 != 0 {
        return Err(invalid("it may have read bits only (0444 at most): the volume is read-only"));
    }
    if mode == 0 {
        return Err(invalid("nobody could read the files"));
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn design_section_4() {
        let t = |uid, gid, mode, fs_group| Wishes { uid, gid, mode, fs_group }.ownership();
        let o = |uid, gid, file_mode, dir_mode| Ownership { uid, gid, file_mode, dir_mode };
        for (got, expected) in [
            (t(None, None, None, None), o(None, None, 0o444, 0o755)),
            (t(None, None, None, Some(7)), o(None, Some(7), 0o440, 0o750)),
            (t(Some(5), None, None, None), o(Some(5), None, 0o400, 0o700)),
            (t(None, Some(6), None, None), o(None, Some(6), 0o440, 0o750)),
            (t(Some(5), Some(6), None, None), o(Some(5), Some(6), 0o440, 0o750)),
            (t(None, Some(6), None, Some(7)), o(None, Some(6), 0o440, 0o750)),
            (t(Some(5), None, None, Some(7)), o(Some(5), Some(7), 0o440, 0o750)),
            (t(None, None, Some(0o400), None), o(None, None, 0o400, 0o700)),
            (t(None, None, Some(0o444), Some(7)), o(None, Some(7), 0o444, 0o755)),
            (t(Some(5), None, Some(0o404), None), o(Some(5), None, 0o404, 0o705)),
        ] {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn ids() {
        assert_eq!(parse_id("0"), Some(0));
        assert_eq!(parse_id("1000690000"), Some(1_000_690_000));
        assert_eq!(parse_id("4294967294"), Some(4_294_967_294));
        for bad in ["", "4294967295", "4294967296", "-1", "+1", "0x1", "1 ", "root", "１"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn modes() {
        for (good, mode) in
            [("0440", 0o440), ("440", 0o440), ("0o444", 0o444), ("4", 0o4), ("0400", 0o400)]
        {
            assert_eq!(parse_mode(good), Ok(mode));
        }
        for bad in [
            "", "0", "0000", "0640", "0755", "0444x", "888", "4440", "00440", "-440", "u=r", "0x44",
        ] {
            parse_mode(bad).unwrap_err();
        }
    }
}
