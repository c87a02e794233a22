//! What an operator sets about the CA.

use std::{path::PathBuf, time::Duration};

use super::jwt::JwtKeySettings;
use crate::{id::TrustDomain, pki::KeyAlgorithm};

/// How far the clocks of replicas, nodes and verifiers may be apart.
pub const SKEW: Duration = Duration::from_secs(60);

/// For how long a retired CA may go on signing where the next is not known yet. Longer than a
/// replica signs without having heard of the CA Secret, and than clocks are apart.
pub const HANDOVER: Duration = Duration::from_secs(120);

/// For how long a retiring local CA stays published after it was last seen: the longest lifetime of
/// an SVID and a margin.
pub const RETIRING: Duration = Duration::from_secs(26 * 3600);

/// The settings of the CA and of what is published about it.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// The trust domain that is signed for.
    pub trust_domain: TrustDomain,
    /// The namespace of the Secret, the ConfigMap and the upstream Secret.
    pub namespace: String,
    /// The Secret that holds the CA's keys.
    pub secret: String,
    /// The ConfigMap that the nodes follow.
    pub config_map: String,
    /// How long a CA of our own lives.
    pub lifetime: Duration,
    /// The key of a CA of our own.
    pub key_algorithm: KeyAlgorithm,
    /// For how long a root is published before it signs.
    pub propagation: Duration,
    /// The longest life of an SVID.
    pub max_ttl: Duration,
    /// What JWT-SVIDs and their keys are like.
    pub jwt: JwtKeySettings,
    /// A Secret with `tls.crt`, `tls.key` and `ca.crt` that something else renews, in place of a CA
    /// of our own.
    pub upstream: Option<String>,
    /// A directory with the certificates, never the key, of a local CA that is being left.
    pub retiring_dir: Option<PathBuf>,
    /// The ConfigMap with `ca.crt` to write into selected namespaces.
    pub pem_config_map: Option<PemConfigMap>,
    /// Whether to publish a ClusterTrustBundle.
    pub cluster_trust_bundle: bool,
}

/// Where the bundle is published as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemConfigMap {
    /// The ConfigMap's name.
    pub name: String,
    /// Which namespaces get it: a label selector; empty is all of them.
    pub namespaces: String,
}

// === impl CaSettings ===

impl CaSettings {
    /// How long a CA of our own lives.
    pub const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
    /// For how long a root is published before it signs.
    pub const PROPAGATION: Duration = Duration::from_secs(300);
    /// The longest life of an SVID.
    pub const MAX_TTL: Duration = Duration::from_secs(86_400);
    /// The usual name of the Secret.
    pub const SECRET: &str = "svid-csi-ca-keys";

    /// A CA of our own, with everything at its default.
    pub fn new(trust_domain: TrustDomain, namespace: impl Into<String>) -> Self {
        Self {
            trust_domain,
            namespace: namespace.into(),
            secret: Self::SECRET.to_owned(),
            config_map: "svid-csi-bundle".to_owned(),
            lifetime: Self::LIFETIME,
            key_algorithm: KeyAlgorithm::EcdsaP256,
            propagation: Self::PROPAGATION,
            max_ttl: Self::MAX_TTL,
            jwt: JwtKeySettings::default(),
            upstream: None,
            retiring_dir: None,
            pem_config_map: None,
            cluster_trust_bundle: false,
        }
    }

    /// Says why these settings can't work together. The last third of a CA's life must have room
    /// for the next one's publication.
    pub fn check(&self) -> Result<(), String> {
        if self.upstream.is_none() && self.lifetime / 6 < self.propagation {
            return Err(format!(
                "a CA that lives {} s is too short for a propagation time of {} s; it must live six times as long",
                self.lifetime.as_secs(),
                self.propagation.as_secs()
            ));
        }
        Ok(())
    }
}
