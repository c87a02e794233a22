//! Which records are the driver's own: a container that can make its volume writable can write
//! one, too, but does not have the key.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::{hmac, rand};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::sys::{RegularFile, effective_uid};

const FILE: &str = "record.key";
const NEW: &str = ".record.key.new";
const SIZE: usize = 32;
/// What the code is made over besides the record, so that it serves for nothing else.
const PURPOSE: &[u8] = b"svid-csi record\0";

/// How a record ends before it has its code.
const END: &[u8] = b"\n}";
/// How it ends then: with a last member, whose code is over everything before it.
const BEFORE: &[u8] = b",\n  \"mac\": \"";
const AFTER: &[u8] = b"\"\n}";
const HEX: usize = 64;

/// The key that records are authenticated with (HMAC-SHA256). It lies on the node's disk, where
/// no pod reaches, and leaves the node never.
pub struct RecordKey(hmac::Key);

/// Why a record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MacError {
    /// It has no code.
    #[error("record.json has no \"mac\": an older driver wrote it, or somebody else did")]
    Missing,
    /// The record is another, or the key is.
    #[error("record.json's \"mac\" is wrong: somebody changed the record, or record.key is new")]
    Wrong,
}

// === impl RecordKey ===

impl RecordKey {
    /// The key of this directory, made if there is none that can be used. Records under another
    /// key count as unreadable, which kubelet's next republish mends. Fails only without
    /// randomness.
    pub fn open(directory: &Path) -> io::Result<Self> {
        match read(&directory.join(FILE)) {
            Ok(bytes) => return Ok(Self::of(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                info!("there is no record.key yet; one is made");
            }
            Err(error) => warn!(
                %error,
                "record.key can't be used; a new one is made, and volumes wait for kubelet's \
                 next republish"
            ),
        }
        let bytes = random()?;
        if let Err(error) = write(directory, &*bytes) {
            warn!(%error, "record.key can't be written: the next start will believe no record");
        }
        Ok(Self::of(&*bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Adds the code to a record: pretty-printed JSON, an object with a member at least.
    pub(super) fn sign(&self, mut json: Vec<u8>) -> Vec<u8> {
        if json.ends_with(END) {
            json.truncate(json.len() - END.len());
        }
        let code = hmac::sign(&self.0, &[PURPOSE, &json].concat());
        json.extend_from_slice(BEFORE);
        json.extend(code.as_ref().iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        json.extend_from_slice(AFTER);
        json
    }

    /// The record that was given to [`Self::sign`], if this is its result.
    pub(super) fn verify(&self, signed: &[u8]) -> Result<Vec<u8>, MacError> {
        let (json, code) = split(signed).ok_or(MacError::Missing)?;
        hmac::verify(&self.0, &[PURPOSE, json].concat(), &code)
            .map_err(|_unspecified| MacError::Wrong)?;
        Ok([json, END].concat())
    }
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordKey(..)")
    }
}

/// What the code is over, and the code.
fn split(signed: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let rest = signed.strip_suffix(AFTER)?;
    let (json, hex) = rest.split_at_checked(rest.len().checked_sub(HEX)?)?;
    let digits = hex.chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let code = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>()?;
    Some((json.strip_suffix(BEFORE)?, code))
}

fn random() -> io::Result<Zeroizing<[u8; SIZE]>> {
    let mut bytes = Zeroizing::new([0; SIZE]);
    rand::fill(&mut *bytes).map_err(|_unspecified| io::Error::other("no randomness"))?;
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let refused = |reason: &str| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    if fs::symlink_metadata(path)?.is_symlink() {
        return refused("it is a symlink");
    }
    let RegularFile { content, metadata } = RegularFile::read(path, SIZE)?;
    if metadata.mode() & 0o077 != 0 || metadata.uid() != effective_uid() {
        return refused("others can read it, so that they may know it");
    }
    if content.len() != SIZE {
        return refused("it has not the length of a key");
    }
    Ok(content)
}

/// Whole or not at all. Whoever writes has the directory's lock.
fn write(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(NEW);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;

    const RECORD: &[u8] = b"{\n  \"version\": 1,\n  \"state\": \"live\"\n}";

    fn key() -> RecordKey {
        RecordKey::of(&[7; SIZE])
    }

    #[test]
    fn a_signed_record_is_json_still_and_verifies() {
        let signed = key().sign(RECORD.to_vec());
        let json: serde_json::Value = serde_json::from_slice(&signed).unwrap();
        assert_eq!(json["state"], "live");
        assert_eq!(json["mac"].as_str().unwrap().len(), HEX);
        assert_eq!(key().verify(&signed).unwrap(), RECORD);
        assert_eq!(key().verify(RECORD), Err(MacError::Missing));
        assert_eq!(RecordKey::of(&[8; SIZE]).verify(&signed), Err(MacError::Wrong));
    }

    #[test]
    fn a_second_code_behind_the_first_is_no_record_of_ours() {
        let signed = key().sign(RECORD.to_vec());
        let stranger = RecordKey::of(&[8; SIZE]).sign(signed);
        assert_eq!(key().verify(&stranger), Err(MacError::Wrong));
    }

    proptest! {
        #[test]
        fn any_other_byte_is_noticed(at in 0..1_000_usize, to in any::<u8>()) {
            let mut signed = key().sign(RECORD.to_vec());
            let at = at % signed.len();
            let upper = signed[at].to_ascii_uppercase();
            prop_assume!(signed[at] != to && upper != to);
            signed[at] = to;
            prop_assert!(key().verify(&signed).is_err());
        }

        #[test]
        fn anything_can_be_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(key().verify(&bytes).is_err());
        }
    }

    #[test]
    fn the_key_is_made_once_and_is_roots_alone() {
        let dir = tempfile::tempdir().unwrap();
        let signed = RecordKey::open(dir.path()).unwrap().sign(RECORD.to_vec());
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        RecordKey::open(dir.path()).unwrap().verify(&signed).unwrap();
    }

    #[test]
    fn a_key_that_cannot_be_used_is_made_anew() {
        let damage: [&dyn Fn(&Path); 6] = [
            &|path| fs::write(path, [1; SIZE - 1]).unwrap(),
            &|path| fs::write(path, [1; SIZE + 1]).unwrap(),
            &|path| fs::write(path, "").unwrap(),
            &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap(),
            &|path| fs::remove_file(path).unwrap(),
            &|path| {
                fs::rename(path, path.with_extension("moved")).unwrap();
                symlink(path.with_extension("moved"), path).unwrap();
            },
        ];
        for damage in damage {
            let dir = tempfile::tempdir().unwrap();
            let signed = RecordKey::open(dir.path()).unwrap().sign(RECORD.to_vec());
            fs::write(dir.path().join(NEW), "as a crash leaves it").unwrap();
            damage(&dir.path().join(FILE));
            let key = RecordKey::open(dir.path()).unwrap();
            assert_eq!(key.verify(&signed), Err(MacError::Wrong));
            let signed = key.sign(RECORD.to_vec());
            RecordKey::open(dir.path()).unwrap().verify(&signed).unwrap();
        }
    }

    #[test]
    fn a_directory_that_takes_no_key_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let key = RecordKey::open(&dir.path().join("missing")).unwrap();
        key.verify(&key.sign(RECORD.to_vec())).unwrap();
    }
}
