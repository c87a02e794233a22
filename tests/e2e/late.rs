//! A second driver under another name, whose absence and broken signer trouble nobody else.

use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    ca::SECRET,
    ground::{Ground, chart},
    patience::{eventually, now},
    signer::Signer,
};

const NAME: &str = "svid-csi-late";
const NODE: &str = "component=node";
/// Nodes that the driver may run on have it.
const LABEL: &str = "e2e-late";
const LIMIT: Duration = Duration::from_secs(60);

pub struct Late<'a> {
    ground: &'a Ground,
}

// === impl Late ===

impl<'a> Late<'a> {
    pub const DRIVER: &'static str = "late.svid.dev";

    /// Installs it, with no node to run on yet and no CA.
    pub fn installed(ground: &'a Ground) -> Result<Self> {
        let late = Self { ground };
        late.label("-")?;
        ground.privileged_namespace(NAME)?;
        late.set_ca(None)?;
        let chart = chart().display().to_string();
        let mut values = ground.values()?;
        values.push(format!("driverName={}", Self::DRIVER));
        // Two controllers can't share a cluster's signer name.
        values.extend(Signer::Local.values());
        values.push(format!("nodeSelector.{LABEL}=here"));
        let mut args = vec!["upgrade", "--install", NAME, &chart, "-n", NAME];
        for value in &values {
            args.extend(["--set", value]);
        }
        ground.cluster.helm(args).text()?;
        Ok(late)
    }

    /// Lets it run on every node; the moment at which kubelet knew it everywhere.
    pub fn admit(&self) -> Result<Instant> {
        self.label("=here")?;
        eventually("the late driver to register", LIMIT, || {
            for node in self.ground.cluster.list("", "csinodes", "")? {
                let drivers = node["spec"]["drivers"].as_array().into_iter().flatten();
                let known = drivers.filter(|driver| driver["name"] == Self::DRIVER).count();
                ensure!(known == 1, "not known in {}", node["metadata"]["name"]);
            }
            Ok(Instant::now())
        })
    }

    /// Replaces its CA, or takes it away.
    pub fn set_ca(&self, secret: Option<Value>) -> Result<()> {
        let cluster = &self.ground.cluster;
        match secret {
            Some(mut secret) => {
                secret["metadata"]["namespace"] = NAME.into();
                cluster.apply(&[secret])?;
            }
            None => {
                let args = ["-n", NAME, "delete", "secret", SECRET, "--ignore-not-found"];
                cluster.kubectl(args)?;
            }
        }
        // kubelet looks at a pod's Secrets whenever the pod changes, else only now and then.
        for pod in self.pods()? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let change = format!("{LABEL}={}", now().duration_since(UNIX_EPOCH)?.as_nanos());
            cluster.kubectl(["-n", NAME, "annotate", "--overwrite", "pod", name, &change])?;
        }
        Ok(())
    }

    /// Ends its processes and waits for new ones, good or not.
    pub fn restart(&self) -> Result<()> {
        let old = self.pods()?;
        let selector = format!("app.kubernetes.io/{NODE}");
        self.ground.cluster.kubectl(["-n", NAME, "delete", "pod", "-l", &selector])?;
        eventually("the late driver to start again", LIMIT, || {
            let pods = self.pods()?;
            ensure!(pods.len() == old.len(), "{} pods, not {}", pods.len(), old.len());
            let started = |pod: &Value| pod["status"]["containerStatuses"][0]["started"] == true;
            ensure!(pods.iter().all(started), "not every one has started");
            Ok(())
        })
    }

    /// Takes it away again, after the pods that use it.
    pub fn remove(&self, namespace: &str, consumers: &[&str]) -> Result<()> {
        let cluster = &self.ground.cluster;
        let args = ["-n", namespace, "delete", "pod", "--timeout=60s"];
        cluster.kubectl(args.into_iter().chain(consumers.iter().copied()))?;
        cluster.helm(["uninstall", NAME, "-n", NAME, "--wait"]).text()?;
        cluster.delete_namespace(NAME, LIMIT)?;
        self.label("-")
    }

    fn pods(&self) -> Result<Vec<Value>> {
        self.ground.cluster.list(NAME, "pods", &format!("app.kubernetes.io/{NODE}"))
    }

    fn label(&self, suffix: &str) -> Result<()> {
        let change = format!("{LABEL}{suffix}");
        self.ground.cluster.kubectl(["label", "nodes", "--all", "--overwrite", &change]).map(drop)
    }
}
