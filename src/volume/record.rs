//! What the driver remembers about a volume, in the volume itself.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{context::VolumeContext, id::VolumeId, pod::PodInfo, timestamp};
use crate::{class::Class, id::SpiffeId, pki::KeyAlgorithm};

/// The record's name in the volume's private directory.
pub const RECORD_FILE: &str = "record.json";

/// How much of a volume exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Its publish has not answered OK yet.
    Pending,
    /// The pod has it.
    Live,
}

/// `.svid/record.json`. Container root can read it, so it holds nothing that the pod may not see:
/// never a key or a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// The format; [`VolumeRecord::VERSION`].
    pub version: u32,
    /// How much of the volume exists.
    pub state: RecordState,
    /// The name of the driver that wrote it.
    pub driver: String,
    /// Kubelet's name for the volume.
    pub volume_id: VolumeId,
    /// The target beneath kubelet's directory (`pods/…`), which must be where the record is found.
    pub target: String,
    /// Whose it is.
    pub pod: PodInfo,
    /// The identity asked for or given.
    pub spiffe_id: SpiffeId,
    /// What policy assigned, where the node would ask for another identity. Renewals ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_id: Option<SpiffeId>,
    /// The key algorithm that policy assigned with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_key_algorithm: Option<KeyAlgorithm>,
    /// The request, to be compared with the next one.
    pub context: VolumeContext,
    /// The pod's fsGroup, as requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_group: Option<String>,
    /// The current leaf's serial number in lowercase hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The current leaf's validity begins.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::optional")]
    pub not_before: Option<SystemTime>,
    /// The current leaf's validity ends.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::optional")]
    pub not_after: Option<SystemTime>,
    /// When the next leaf is due.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::optional")]
    pub renew_at: Option<SystemTime>,
    /// SHA-256, in hex, of each `bundle.json` that the volume may show: what else is found there was
    /// not written by the driver. Two while a new one is being swapped in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<String>,
    /// Set while the current leaf is under a CA key that is believed stolen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taint: Option<Taint>,
    /// Why the last attempt to renew failed; gone after one that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Whether the volume's pages never go to swap.
    #[serde(default)]
    pub noswap: bool,
}

/// The current leaf is under a CA key that is believed stolen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// When this node learned of it.
    #[serde(with = "timestamp::required")]
    pub since: SystemTime,
    /// How many leaves in a row before this one were, too.
    #[serde(default)]
    pub round: u32,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When.
    #[serde(with = "timestamp::required")]
    pub at: SystemTime,
    /// [`Class::label`].
    pub class: String,
    /// For a person.
    pub message: String,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Nothing of ours is that long.
    #[error("record.json has {0} bytes, more than a record can have")]
    TooLarge(usize),
    /// Written by a newer driver.
    #[error(
        "record.json has version {version} and this driver knows {}: run the newer driver again, or delete the pod",
        VolumeRecord::VERSION
    )]
    Newer {
        /// Its version.
        version: u32,
    },
    /// Not a record.
    #[error("record.json is not readable: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// All that is read of a record before its version is known.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

// === impl VolumeRecord ===

impl VolumeRecord {
    /// The format that this driver writes.
    pub const VERSION: u32 = 1;

    /// The longest record, in bytes.
    pub const MAX_SIZE: usize = 256 << 10;

    /// As it is written. Fails on times beyond the year 9999, and on what could not be read again.
    pub fn to_json(&self) -> Result<Vec<u8>, RecordError> {
        let json = serde_json::to_vec_pretty(self)?;
        if json.len() > Self::MAX_SIZE {
            return Err(RecordError::TooLarge(json.len()));
        }
        Ok(json)
    }

    /// Reads what may be anything. Members that are not known are skipped.
    pub fn from_json(json: &[u8]) -> Result<Self, RecordError> {
        if json.len() > Self::MAX_SIZE {
            return Err(RecordError::TooLarge(json.len()));
        }
        let Versioned { version } = serde_json::from_slice(json)?;
        if version > Self::VERSION {
            return Err(RecordError::Newer { version });
        }
        Ok(serde_json::from_slice(json)?)
    }
}

// === impl LastError ===

impl LastError {
    /// Notes a failure; a message of more than 2,048 characters is cut.
    pub fn new(at: SystemTime, class: Class, message: &str) -> Self {
        Self { at, class: class.label().to_owned(), message: message.chars().take(2048).collect() }
    }

    /// Whether policy was against it.
    pub fn is_denied(&self) -> bool {
        self.class == Class::Denied.label()
    }
}

// === impl RecordError ===

impl RecordError {
    /// The node's, or whoever ran another driver on it.
    pub fn class(&self) -> Class {
        match self {
            Self::Newer { .. } => Class::NotReady,
            Self::TooLarge(_) | Self::Malformed(_) => Class::Internal,
        }
    }
}

#[cfg(test)]
mod tests;
