//! All that is known of the CAs and JWT keys: what the CA Secret holds.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

use super::{entry::Entry, jwt::JwtEntry, moment::Moment, request::Answer, settings::CaSettings};
use crate::{
    id::TrustDomain,
    pki::{BundleError, Certificate, PkiError, TrustBundle},
};

/// All that is known of the CAs and the JWT keys. It is kept in the CA Secret, and only the leader changes it.
#[derive(Clone, Debug, PartialEq)]
pub struct CaState {
    pub(super) trust_domain: TrustDomain,
    /// `spiffe_sequence` of the bundle, which has these roots and JWT keys, each by its name: a
    /// root's fingerprint in hexadecimal, a JWT key's thumbprint in base64url.
    pub(super) sequence: u64,
    pub(super) bundle: Vec<String>,
    pub(super) entries: Vec<Entry>,
    pub(super) jwt_keys: Vec<JwtEntry>,
    /// Since when each root and JWT key is in the published ConfigMap, by its name.
    pub(super) published: BTreeMap<String, Moment>,
    /// Public keys that never sign here (again), by fingerprint.
    pub(super) refused: BTreeMap<String, Refused>,
    /// The last request of a person, and what became of it.
    pub(super) answer: Option<Answer>,
    pub(super) seal: Seal,
    /// The Secret and the ConfigMap that it was written to, by UID: a copy from a backup is in others.
    pub(super) home: Home,
    /// When it was last taken over from a backup.
    pub(super) restored: Option<Moment>,
}

/// UIDs of the objects that a state is kept and published in; nothing before they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Home {
    pub(super) secret: Option<String>,
    pub(super) map: Option<String>,
}

/// Why a key never signs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Refused {
    /// DESIGN.md invariant 5.
    WasOnNodes,
    /// Believed stolen.
    Tainted,
}

/// Tells what we published from what someone else wrote: an HMAC key that stays through rotations.
#[derive(Clone, PartialEq)]
pub(super) struct Seal(Arc<Zeroizing<Vec<u8>>>);

// === impl CaState ===

impl CaState {
    /// Without any CA yet.
    pub(super) fn empty(trust_domain: TrustDomain) -> Result<Self, PkiError> {
        Ok(Self {
            trust_domain,
            sequence: 0,
            bundle: Vec::new(),
            entries: Vec::new(),
            jwt_keys: Vec::new(),
            published: BTreeMap::new(),
            refused: BTreeMap::new(),
            answer: None,
            seal: Seal::generate()?,
            home: Home::default(),
            restored: None,
        })
    }

    pub(super) fn active(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_active())
    }

    pub(super) fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.ca.id == id)
    }

    /// Every root to be trusted, each once, in the order they came: who signs changes no bundle.
    pub(super) fn roots(&self) -> Vec<Certificate> {
        let published = self.entries.iter().filter(|entry| entry.is_published());
        let mut roots: Vec<Certificate> = Vec::new();
        for root in published.flat_map(|entry| &entry.ca.roots) {
            if !roots.contains(root) && !self.is_dropped(root) {
                roots.push(root.clone());
            }
        }
        roots
    }

    /// The name of everything that is to be trusted.
    pub(super) fn trusted(&self) -> Vec<String> {
        let roots = self.roots();
        let keys = self.jwt_keys.iter().filter(|entry| entry.stage.is_published());
        let keys = keys.map(|entry| entry.key.id.clone());
        roots.iter().map(Certificate::sha256).chain(keys).collect()
    }

    /// Whether it was taken out by force, and by that from every CA that lists it.
    fn is_dropped(&self, root: &Certificate) -> bool {
        let print = root.sha256();
        self.entries.iter().any(|entry| !entry.is_published() && entry.ca.anchors.contains(&print))
    }

    /// The bundle to publish.
    pub(super) fn trust_bundle(&self, settings: &CaSettings) -> Result<TrustBundle, BundleError> {
        let bundle = TrustBundle::new(self.trust_domain.clone(), self.roots())?;
        let hint = settings.propagation.clamp(MIN_HINT, MAX_HINT);
        let bundle = bundle.with_jwt_authorities(self.jwt_authorities());
        Ok(bundle.with_sequence(Some(self.sequence)).with_refresh_hint(Some(hint)))
    }

    /// Since when a root that this CA's SVIDs chain to is published.
    pub(super) fn published_since(&self, entry: &Entry) -> Option<Moment> {
        entry.ca.anchors.iter().filter_map(|root| self.published.get(root)).min().copied()
    }

    /// From when a prepared CA may sign; nothing while it is not published.
    pub(super) fn usable_at(&self, entry: &Entry, settings: &CaSettings) -> Option<Moment> {
        Some(entry.life().usable_at(self.published_since(entry)?, settings.propagation))
    }

    /// The keys that nodes are told of as stolen: of CAs that sign no longer, anywhere, so that a
    /// renewal helps.
    pub(super) fn tainted(&self, now: Moment) -> Vec<String> {
        let Some(active) = self.active().filter(|active| active.is_alive(now)) else {
            return Vec::new();
        };
        let over = |entry: &&Entry| {
            entry.life().is_stolen_and_silent(now) && entry.ca.key_id != active.ca.key_id
        };
        let mut keys: Vec<String> =
            self.entries.iter().filter(over).map(|entry| entry.ca.key_id.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}

/// How soon someone who polls the bundle comes again.
const MIN_HINT: std::time::Duration = std::time::Duration::from_secs(10);
const MAX_HINT: std::time::Duration = std::time::Duration::from_secs(300);

// === impl Seal ===

impl Seal {
    /// Bytes of the key.
    pub(super) const LENGTH: usize = 32;

    fn generate() -> Result<Self, PkiError> {
        let mut key = Zeroizing::new(vec![0; Self::LENGTH]);
        SystemRandom::new().fill(&mut key).map_err(|_unspecified| PkiError::Random)?;
        Ok(Self(Arc::new(key)))
    }

    pub(super) fn of(key: Zeroizing<Vec<u8>>) -> Option<Self> {
        (key.len() == Self::LENGTH).then(|| Self(Arc::new(key)))
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.0
    }

    /// The seal of a text, in hexadecimal.
    pub(super) fn seal(&self, text: &str) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), text.as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether we sealed it.
    pub(super) fn is_of(&self, seal: &str, text: &str) -> bool {
        // Whoever can time this can as well read the ConfigMap's seal.
        self.seal(text) == seal
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}
