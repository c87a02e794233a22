//! Who signs in this run.

use std::{env, time::Duration};

use anyhow::{Result, bail};

use crate::{ca, issuers};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The controller, by CertificateSigningRequests.
    Csr,
    /// The controller, asked directly.
    Controller,
    /// One of cert-manager's issuers, where the controller approves.
    CertManager,
    /// Every node, with the CA's key from a Secret.
    Local,
}

// === impl Signer ===

impl Signer {
    /// By `SIGNER`, several with commas between; the chart's default is ours.
    pub fn from_environment() -> Result<Vec<Self>> {
        let wanted = env::var("SIGNER").unwrap_or_default();
        let mut signers = Vec::new();
        for name in wanted.split(',').filter(|name| !name.is_empty()) {
            let signer = match name {
                "csr" => Self::Csr,
                "controller" => Self::Controller,
                "cert-manager" => Self::CertManager,
                "local" => Self::Local,
                other => bail!("SIGNER={other}: it is csr, controller, cert-manager or local"),
            };
            signers.push(signer);
        }
        if signers.is_empty() {
            signers.push(Self::Csr);
        }
        if signers.len() > 1 && signers.contains(&Self::Local) {
            bail!("SIGNER={wanted}: from local to another takes two upgrades, so local runs alone");
        }
        if signers.len() > 1 && signers.contains(&Self::CertManager) {
            bail!("SIGNER={wanted}: cert-manager has CAs of its own, so it runs alone");
        }
        Ok(signers)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Csr => "csr",
            Self::Controller => "controller",
            Self::CertManager => "cert-manager",
            Self::Local => "local",
        }
    }

    /// Whether our controller decides what pods get.
    pub fn is_decided(self) -> bool {
        self != Self::Local
    }

    /// How long a new CA is in every bundle before it signs. With a CA on the nodes it is longer
    /// than one node's kubelet and driver can be behind the other's; the controller's bundle is
    /// followed at once.
    pub fn propagation(self) -> Duration {
        Duration::from_secs(if self.is_decided() { 15 } else { 40 })
    }

    /// What the chart is to be told.
    pub fn values(self) -> Vec<String> {
        // The controller may also run beside the nodes' CA.
        let controller = Self::Csr.propagation().as_secs();
        let mut values = vec![
            format!("controller.ca.propagation={controller}s"),
            format!("signer={}", self.name()),
            // So that a new key has signed everybody's soon.
            "controller.defaultPolicy.spec.jwt.maxTTL=2m".to_owned(),
        ];
        if self == Self::CertManager {
            values.push(format!("certManager.issuer.name={}", issuers::FIRST));
            let second = format!("ClusterIssuer.cert-manager.io/{}", issuers::SECOND);
            values.push(format!("certManager.allowedIssuers={{{second}}}"));
        }
        if self == Self::Local {
            values.push(format!("local.propagation={}s", self.propagation().as_secs()));
            values.push(format!("local.caSecret={}", ca::SECRET));
        }
        values
    }
}
