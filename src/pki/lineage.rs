//! What a CA's certificates say about each other: key identifiers and the roots that a chain ends at.

use aws_lc_rs::digest::{SHA256, digest};

use super::profile::key_id;
use super::{Authority, Certificate};
use crate::encoding::der::hex;

/// SHA-256 in lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

// === impl Certificate ===

impl Certificate {
    /// The identifier of this CA's key in lowercase hexadecimal, as the authorityKeyIdentifier of
    /// what it signs has it: subjectKeyIdentifier, or what [`Authority`] uses where that is absent.
    pub fn key_id_hex(&self) -> String {
        match self.subject_key_id() {
            Some(id) => hex(id),
            None => hex(&key_id(self.spki_der()).unwrap_or_default()),
        }
    }
}

// === impl Authority ===

impl Authority {
    /// The roots that the chain of an SVID can end at: one, or more where a root was renewed with
    /// the same key. Other roots of the bundle are trusted for what others sign.
    pub fn anchors(&self) -> impl Iterator<Item = &Certificate> {
        let last = self.chain().last();
        self.roots().iter().filter(move |root| match last {
            Some(last) => last.is_signed_by(root),
            None => *root == self.certificate(),
        })
    }
}
