//! One CA: its certificates, perhaps its key, and where it is in its life.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    moment::Moment,
    stage::{Life, Stage},
};
use crate::pki::{Authority, Certificate};

/// One CA and where it is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) ca: Material,
    pub(super) stage: Stage,
    /// Its key is believed stolen.
    pub(super) tainted: bool,
    pub(super) origin: Origin,
    /// The longest life of what it may have signed.
    pub(super) max_ttl: Duration,
}

/// A CA's certificates and, while it may sign, its key. Cheap to clone.
#[derive(Clone)]
pub(super) struct Material {
    /// Of the certificate and the roots: the same CA with other roots is another one.
    pub(super) id: String,
    /// Of its key, as the leaves have it.
    pub(super) key_id: String,
    pub(super) certificate: Certificate,
    /// From the signing CA up, without roots; empty if it is its own root.
    pub(super) chain: Vec<Certificate>,
    pub(super) roots: Vec<Certificate>,
    /// Which of the roots its SVIDs chain to, by fingerprint.
    pub(super) anchors: Vec<String>,
    pub(super) authority: Option<Arc<Authority>>,
}

/// Whose CA it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Made by us.
    Own,
    /// Copied from the upstream Secret.
    Upstream,
    /// Only its root is known.
    Root,
}

// === impl Entry ===

impl Entry {
    /// A CA that will sign.
    pub(super) fn prepared(authority: Arc<Authority>, origin: Origin, max_ttl: Duration) -> Self {
        let stage = Stage::Prepared { hurry: origin == Origin::Upstream, first: false };
        let ca = Material::of(authority);
        Self { ca, stage, tainted: false, origin, max_ttl }
    }

    /// A root that is trusted until then.
    pub(super) fn foreign(root: Certificate, remove_at: Moment) -> Self {
        Self {
            ca: Material::of_root(root),
            stage: Stage::Foreign { remove_at },
            tainted: false,
            origin: Origin::Root,
            max_ttl: Duration::ZERO,
        }
    }

    /// Where it is in its life, and what follows from that.
    pub(super) fn life(&self) -> Life {
        Life {
            stage: self.stage,
            start: Moment::of(self.ca.certificate.not_before()),
            end: self.end(),
            max_ttl: self.max_ttl,
            tainted: self.tainted,
            has_key: self.ca.authority.is_some(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.stage.is_active()
    }

    pub(super) fn is_prepared(&self) -> bool {
        self.stage.is_prepared()
    }

    /// Whether its roots are in the bundle.
    pub(super) fn is_published(&self) -> bool {
        self.stage.is_published()
    }

    /// From when to when its key may be used.
    pub(super) fn signs(&self) -> Option<(Moment, Moment)> {
        self.life().signs()
    }

    /// When nothing that it signed is left.
    pub(super) fn remove_at(&self) -> Option<Moment> {
        self.stage.remove_at()
    }

    /// When the first certificate of its chain ends.
    pub(super) fn end(&self) -> Moment {
        self.ca.end()
    }

    /// Whether it can sign something now, its bundle apart.
    pub(super) fn is_alive(&self, now: Moment) -> bool {
        self.life().is_alive(now)
    }

    /// This share of its life, in sixths.
    pub(super) fn sixths(&self, count: u64) -> Moment {
        self.life().sixths(count)
    }

    /// Stops it: the others learn of that within the handover.
    pub(super) fn retire(&mut self, now: Moment) {
        self.stage = self.life().retired(now);
    }

    /// Takes its root out of the bundle and its key away; it is remembered as long as something
    /// under it may live.
    pub(super) fn drop_now(&mut self, now: Moment) {
        self.stage = self.life().dropped(now);
        self.ca.authority = None;
    }

    /// Whether it has this key, or hangs from a root that has.
    pub(super) fn has_key(&self, key_id: &str) -> bool {
        self.ca.key_id == key_id
            || self.ca.chain.iter().any(|ca| ca.key_id_hex() == key_id)
            || self.ca.anchor_certificates().any(|root| root.key_id_hex() == key_id)
    }
}

// === impl Material ===

impl Material {
    pub(super) fn of(authority: Arc<Authority>) -> Self {
        let anchors = authority.anchors().map(Certificate::sha256).collect();
        let (chain, roots) = (authority.chain().to_vec(), authority.roots().to_vec());
        let certificate = authority.certificate().clone();
        Self::assemble(certificate, chain, roots, anchors, Some(authority))
    }

    pub(super) fn of_root(root: Certificate) -> Self {
        let anchors = vec![root.sha256()];
        Self::assemble(root.clone(), Vec::new(), vec![root], anchors, None)
    }

    /// A CA whose key is gone.
    pub(super) fn assemble(
        certificate: Certificate,
        chain: Vec<Certificate>,
        roots: Vec<Certificate>,
        anchors: Vec<String>,
        authority: Option<Arc<Authority>>,
    ) -> Self {
        let mut print = certificate.sha256();
        for root in &roots {
            print.push_str(&root.sha256());
        }
        let id = crate::pki::sha256_hex(print.as_bytes()).chars().take(16).collect();
        let key_id = certificate.key_id_hex();
        Self { id, key_id, certificate, chain, roots, anchors, authority }
    }

    pub(super) fn anchor_certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.roots.iter().filter(|root| self.anchors.contains(&root.sha256()))
    }

    fn end(&self) -> Moment {
        match &self.authority {
            Some(authority) => Moment::of(authority.not_after()),
            None => Moment::of(self.certificate.not_after()),
        }
    }

    /// Every public key that vouches for what it signs.
    pub(super) fn public_keys(&self) -> impl Iterator<Item = String> {
        [&self.certificate]
            .into_iter()
            .chain(&self.chain)
            .chain(self.anchor_certificates())
            .map(|certificate| crate::pki::sha256_hex(certificate.spki_der()))
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        // The id has certificate and roots; the chain between them follows from them.
        self.id == other.id
            && self.chain == other.chain
            && self.authority.is_some() == other.authority.is_some()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("id", &self.id)
            .field("certificate", &self.certificate)
            .field("roots", &self.roots.len())
            .field("has_key", &self.authority.is_some())
            .finish_non_exhaustive()
    }
}
