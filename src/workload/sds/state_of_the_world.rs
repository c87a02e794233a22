//! The state-of-the-world variant: each response has all that is asked for.

use std::collections::BTreeSet;

use svid_csi_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tonic::Status;

use super::{
    Protocol,
    protocol::{Nonces, Rejection, WILDCARD, check_names, check_type, validation},
    secrets::{Entry, Secrets, TYPE_URL, Validation},
};
use crate::pki::sha256_hex;

/// A stream of `StreamSecrets`.
#[derive(Debug, Default)]
pub(super) struct StateOfTheWorld {
    /// What is asked for; nothing was, yet.
    asked: Option<Asked>,
    validation: Validation,
    nonces: Nonces,
    /// The version that was sent last, unless it must be sent again.
    sent: Option<String>,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    All,
    Names(BTreeSet<String>),
}

// === impl StateOfTheWorld ===

impl Protocol for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn take(&mut self, request: DiscoveryRequest) -> Result<Option<Rejection>, Status> {
        check_type(&request.type_url)?;
        check_names(&request.resource_names)?;
        if let Some(node) = &request.node {
            self.validation = validation(node);
        }
        if self.nonces.any() && !self.nonces.is_last(&request.response_nonce) {
            // It was sent before the client saw the newest response, to which it will answer too.
            return Ok(None);
        }
        let asked = Asked::by(request.resource_names, self.asked.as_ref());
        if self.asked.as_ref().is_none_or(|before| asked.adds_to(before)) {
            // What was asked for before may have been forgotten since.
            self.sent = None;
        }
        self.asked = Some(asked);
        Ok(request.error_detail.map(|error| Rejection::new(&error.message)))
    }

    fn answer(&mut self, secrets: &Secrets) -> Result<Option<DiscoveryResponse>, Status> {
        let Some(asked) = &self.asked else { return Ok(None) };
        let entries = asked.entries(secrets, self.validation)?;
        let version = version(&entries);
        if entries.is_empty() || self.sent.as_ref() == Some(&version) {
            return Ok(None);
        }
        self.sent = Some(version.clone());
        Ok(Some(response(version, self.nonces.next(), entries)))
    }
}

/// Answers `FetchSecrets`.
pub(super) fn fetch(
    request: DiscoveryRequest,
    secrets: &Secrets,
) -> Result<DiscoveryResponse, Status> {
    check_type(&request.type_url)?;
    check_names(&request.resource_names)?;
    let validation = request.node.as_ref().map(validation).unwrap_or_default();
    let entries = Asked::by(request.resource_names, None).entries(secrets, validation)?;
    Ok(response(version(&entries), String::new(), entries))
}

fn response(version: String, nonce: String, entries: Vec<Entry>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version,
        resources: entries.into_iter().map(|entry| entry.secret).collect(),
        type_url: TYPE_URL.to_owned(),
        nonce,
    }
}

/// Changes if and only if one of the entries does.
fn version(entries: &[Entry]) -> String {
    let parts = entries.iter().flat_map(|entry| [&*entry.name, "\n", &*entry.version, "\n"]);
    let mut version = sha256_hex(parts.collect::<String>().as_bytes());
    version.truncate(32);
    version
}

// === impl Asked ===

impl Asked {
    /// No name is every entry, but from a client that asked for some before: it wants none now.
    fn by(names: Vec<String>, before: Option<&Self>) -> Self {
        let names: BTreeSet<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let named_before = matches!(before, Some(Self::Names(_)));
        if names.contains(WILDCARD) || (names.is_empty() && !named_before) {
            return Self::All;
        }
        Self::Names(names)
    }

    fn adds_to(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::All, Self::Names(_)) => true,
            (Self::Names(now), Self::Names(before)) => !now.is_subset(before),
            (_, Self::All) => false,
        }
    }

    /// The entries, by name. Names that the pod has nothing under are refused, as in SPIRE.
    fn entries(&self, secrets: &Secrets, validation: Validation) -> Result<Vec<Entry>, Status> {
        let all;
        let names = match self {
            Self::All => {
                all = secrets.names()?;
                &all
            }
            Self::Names(names) => names,
        };
        let mut unknown = Vec::new();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            match secrets.find(name, validation)? {
                Some(entry) => entries.push(entry),
                None => unknown.push(name),
            }
        }
        match *unknown {
            [] => Ok(entries),
            [first, ..] => Err(Status::invalid_argument(format!(
                "workload is not authorized for the requested identities {first:?}{}",
                if unknown.len() > 1 { " and others" } else { "" },
            ))),
        }
    }
}
