//! What the variants of the xDS protocol have in common.

use svid_csi_proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use tonic::Status;

use super::secrets::{TYPE_URL, Validation};

/// Asks for every entry, as no name at all does.
pub(super) const WILDCARD: &str = "*";

/// More names than a pod can have secrets: it may have 100 federated trust domains.
const MAX_NAMES: usize = 256;
/// A SPIFFE ID's limit (SPIFFE-ID §2.3).
const MAX_NAME: usize = 2048;
/// How much of what a client says of its error is worth a line in the log.
const MAX_REASON: usize = 200;

/// A client's word on why it cannot use what it was sent: somebody else's text, cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: String,
}

/// Numbers a stream's responses.
#[derive(Debug, Default)]
pub(super) struct Nonces(u64);

// === impl Rejection ===

impl Rejection {
    pub(super) fn new(message: &str) -> Self {
        let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self { reason: printable.take(MAX_REASON).collect() }
    }
}

// === impl Nonces ===

impl Nonces {
    /// The next response's.
    pub(super) fn next(&mut self) -> String {
        self.0 += 1;
        self.0.to_string()
    }

    /// Whether it is the last response's.
    pub(super) fn is_last(&self, nonce: &str) -> bool {
        self.0 > 0 && nonce == self.0.to_string()
    }

    /// Whether something was sent.
    pub(super) fn any(&self) -> bool {
        self.0 > 0
    }
}

/// Refuses another type of resource. A client that speaks to one service only may leave it out.
pub(super) fn check_type(type_url: &str) -> Result<(), Status> {
    match type_url {
        "" | TYPE_URL => Ok(()),
        _ => Err(Status::invalid_argument(format!("only {TYPE_URL} is served here"))),
    }
}

/// Refuses more names, or longer ones, than anybody needs.
pub(super) fn check_names<'n>(names: impl IntoIterator<Item = &'n String>) -> Result<(), Status> {
    for (index, name) in names.into_iter().enumerate() {
        if index == MAX_NAMES {
            let message = format!("more than {MAX_NAMES} names; a pod has fewer secrets");
            return Err(Status::invalid_argument(message));
        }
        if name.len() > MAX_NAME {
            let message = format!("a name of more than {MAX_NAME} bytes");
            return Err(Status::invalid_argument(message));
        }
    }
    Ok(())
}

/// Which form of validation a client knows. Clients need to say who they are only once in a
/// stream.
pub(super) fn validation(node: &Node) -> Validation {
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build.version,
        _ => None,
    };
    match version.map(|version| (version.major_number, version.minor_number)) {
        Some(version) if version >= (1, 18) => Validation::Spiffe,
        _ => Validation::TrustedCa,
    }
}
