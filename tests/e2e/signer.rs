//! Who signs in this run.

use std::{env, time::Duration};

use anyhow::{Result, bail};

use crate::ca;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The controller, by CertificateSigningRequests.
    Csr,
    /// Every node, with the CA's key from a Secret.
    Local,
}

// === impl Signer ===

impl Signer {
    /// By `SIGNER`; the chart's default is ours.
    pub fn from_environment() -> Result<Self> {
        match env::var("SIGNER").unwrap_or_default().as_str() {
            "" | "csr" => Ok(Self::Csr),
            "local" => Ok(Self::Local),
            other => bail!("SIGNER={other}: it is csr or local"),
        }
    }

    /// How long a new CA is in every bundle before it signs. With a CA on the nodes it is longer
    /// than one node's kubelet and driver can be behind the other's; the controller's bundle is
    /// followed at once.
    pub fn propagation(self) -> Duration {
        Duration::from_secs(match self {
            Self::Csr => 15,
            Self::Local => 40,
        })
    }

    /// What the chart is to be told.
    pub fn values(self) -> Vec<String> {
        // The controller may also run beside the nodes' CA.
        let controller = Self::Csr.propagation().as_secs();
        let mut values = vec![format!("controller.ca.propagation={controller}s")];
        values.extend(match self {
            Self::Csr => vec!["signer=csr".to_owned()],
            Self::Local => vec![
                "signer=local".to_owned(),
                format!("local.propagation={}s", self.propagation().as_secs()),
                format!("local.caSecret={}", ca::SECRET),
            ],
        });
        values
    }
}
