//! Certificates that come with their keys: what a volume's pod is given, and each change of it.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SignError;
use crate::{
    class::Class,
    id::{SpiffeId, TrustDomain},
    pki::{PrivateKey, X509Svid},
};

/// What a pod is given now; `Err` says why it is given nothing.
pub type Given = Result<Arc<HandedOut>, SignError>;

/// What one volume's pod is given, followed until this is dropped.
#[derive(Debug)]
pub struct Handout {
    given: watch::Receiver<Given>,
    _end: DropGuard,
}

/// What a pod is given at one moment. Equal if the SVIDs are the very same.
#[derive(Debug, PartialEq, Eq)]
pub struct HandedOut {
    /// In the order of whoever gives them: at least one. Nothing about them is verified.
    pub svids: Vec<KeyedSvid>,
    /// The trust domains besides its own that it is to know.
    pub federates_with: BTreeSet<TrustDomain>,
}

/// An X.509-SVID with its key. Equal if certificates and key are the same.
#[derive(Clone, Debug)]
pub struct KeyedSvid {
    /// The certificates.
    pub x509: X509Svid,
    /// What should be their key.
    pub key: Arc<PrivateKey>,
}

// === impl Handout ===

impl Handout {
    /// What `given` shows, until this is dropped, which cancels `end`.
    pub fn new(given: watch::Receiver<Given>, end: CancellationToken) -> Self {
        Self { given, _end: end.drop_guard() }
    }

    /// What is given now.
    pub fn current(&self) -> Given {
        self.given.borrow().clone()
    }

    /// What is given, and each change of it from now on. An error is the end.
    pub fn follow(&self) -> watch::Receiver<Given> {
        self.given.clone()
    }

    /// Waits while nothing is given for a reason that passes by itself.
    pub async fn settled(&self) -> Given {
        let passing =
            |given: &Given| given.as_ref().is_err_and(|error| error.class() == Class::Unavailable);
        let mut given = self.given.clone();
        match given.wait_for(|given| !passing(given)).await {
            Ok(given) => given.clone(),
            Err(_ended) => self.current(),
        }
    }
}

// === impl HandedOut ===

impl HandedOut {
    /// The SVID for a volume: the one of the identity that is `wanted`, else of the one that it
    /// `holds`, else the first.
    pub fn choose(&self, wanted: &SpiffeId, holds: Option<&SpiffeId>) -> Option<&KeyedSvid> {
        let of = |id: &SpiffeId| self.svids.iter().find(|svid| svid.x509.id() == id);
        of(wanted).or_else(|| of(holds?)).or_else(|| self.svids.first())
    }
}

// === impl KeyedSvid ===

impl PartialEq for KeyedSvid {
    fn eq(&self, other: &Self) -> bool {
        self.x509 == other.x509 && self.key.spki_der() == other.key.spki_der()
    }
}

impl Eq for KeyedSvid {}
