//! The incremental variant: each response has only what changed.

use std::collections::{BTreeMap, BTreeSet};

use svid_csi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use tonic::Status;

use super::{
    Protocol,
    protocol::{Nonces, Rejection, WILDCARD, check_names, check_type, validation},
    secrets::{Entry, Secrets, TYPE_URL, Validation},
};

/// A stream of `DeltaSecrets`.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// A first request came.
    opened: bool,
    /// Every entry is asked for.
    wildcard: bool,
    /// What is asked for by name.
    names: BTreeSet<String>,
    /// What the client has, or was told that there is none of.
    held: BTreeMap<String, Held>,
    validation: Validation,
    nonces: Nonces,
}

/// What a client has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Version(String),
    Removed,
    /// It may have dropped what it had.
    Dropped,
}

// === impl Delta ===

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<Rejection>, Status> {
        check_type(&request.type_url)?;
        let (subscribe, unsubscribe) =
            (request.resource_names_subscribe, request.resource_names_unsubscribe);
        check_names(&subscribe)?;
        check_names(&unsubscribe)?;
        check_names(request.initial_resource_versions.keys())?;
        check_names(request.initial_resource_versions.values())?;
        if let Some(node) = &request.node {
            self.validation = validation(node);
        }
        if !self.opened {
            self.opened = true;
            // Without a name, the first request is for everything.
            self.wildcard = subscribe.is_empty();
            let held = request.initial_resource_versions.into_iter();
            self.held = held.map(|(name, version)| (name, Held::Version(version))).collect();
        } else {
            // What is asked for again is sent again.
            self.drop_held(&subscribe);
        }
        for name in subscribe {
            if name == WILDCARD {
                self.wildcard = true;
            } else {
                self.names.insert(name);
            }
        }
        check_names(&self.names)?;
        for name in &unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            }
            self.names.remove(name);
        }
        // What asking for everything still includes is sent again, or is said to be gone.
        self.drop_held(&unsubscribe);
        let last = self.nonces.is_last(&request.response_nonce);
        Ok(request.error_detail.filter(|_| last).map(|error| Rejection::new(&error.message)))
    }

    fn answer(&mut self, secrets: &Secrets) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        if !self.opened {
            return Ok(None);
        }
        let mut names = self.names.clone();
        if self.wildcard {
            names.extend(secrets.names()?);
        }
        // What a client that asks for everything has, or once asked for, and there is no more.
        let gone = self.held.iter().filter(|(name, held)| {
            self.wildcard && !names.contains(*name) && **held != Held::Removed
        });
        let mut removed: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        self.held.retain(|name, _| names.contains(name));

        let mut changed = Vec::new();
        for name in names {
            match secrets.find(&name, self.validation)? {
                Some(entry) => {
                    let held = Held::Version(entry.version.clone());
                    if self.held.insert(name, held.clone()) != Some(held) {
                        changed.push(Resource::from(entry));
                    }
                }
                None => {
                    if self.held.insert(name.clone(), Held::Removed) != Some(Held::Removed) {
                        removed.push(name);
                    }
                }
            }
        }
        if changed.is_empty() && removed.is_empty() {
            return Ok(None);
        }
        Ok(Some(DeltaDiscoveryResponse {
            resources: changed,
            type_url: TYPE_URL.to_owned(),
            nonce: self.nonces.next(),
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        }))
    }
}

impl Delta {
    fn drop_held(&mut self, names: &[String]) {
        for name in names {
            if let Some(held) = self.held.get_mut(name) {
                *held = Held::Dropped;
            }
        }
    }
}

impl From<Entry> for Resource {
    fn from(entry: Entry) -> Self {
        Self {
            version: entry.version,
            resource: Some(entry.secret),
            name: entry.name,
            ..Self::default()
        }
    }
}
