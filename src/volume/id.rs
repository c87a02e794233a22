//! What kubelet calls a volume.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::class::Class;

/// A CSI `volume_id`: 1 to 128 bytes, no control characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId(Arc<str>);

/// Why a volume id is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeIdError {
    /// It is empty.
    #[error("volume id is missing")]
    Missing,
    /// Over the CSI specification's size limit.
    #[error("volume id has {0} bytes; the CSI specification allows 128")]
    TooLong(usize),
    /// It would garble a log.
    #[error("volume id has a control character")]
    ControlCharacter,
}

// === impl VolumeId ===

impl VolumeId {
    /// What the time of a renewal is hashed from: the same after every restart, another for each
    /// certificate.
    pub fn renewal_seed(&self, serial_hex: &str) -> Vec<u8> {
        format!("{self} {serial_hex}").into_bytes()
    }

    /// As kubelet wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(id: &str) -> Result<Self, VolumeIdError> {
        if id.is_empty() {
            return Err(VolumeIdError::Missing);
        }
        if id.len() > 128 {
            return Err(VolumeIdError::TooLong(id.len()));
        }
        if id.chars().any(char::is_control) {
            return Err(VolumeIdError::ControlCharacter);
        }
        Ok(Self(id.into()))
    }
}

impl TryFrom<&str> for VolumeId {
    type Error = VolumeIdError;

    fn try_from(id: &str) -> Result<Self, VolumeIdError> {
        id.parse()
    }
}

impl TryFrom<String> for VolumeId {
    type Error = VolumeIdError;

    fn try_from(id: String) -> Result<Self, VolumeIdError> {
        id.parse()
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl VolumeIdError ===

impl VolumeIdError {
    /// Always the request's fault.
    pub fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let kubelets = format!("csi-{}", "0f".repeat(32));
        for good in ["a", "a/b c", &kubelets, &"x".repeat(128)] {
            assert_eq!(good.parse::<VolumeId>().unwrap().to_string(), good);
        }
        for (bad, error) in [
            ("", VolumeIdError::Missing),
            (&"x".repeat(129), VolumeIdError::TooLong(129)),
            ("a\nb", VolumeIdError::ControlCharacter),
        ] {
            assert_eq!(bad.parse::<VolumeId>(), Err(error));
        }
    }
}
