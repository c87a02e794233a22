//! The controller in the cluster: its replicas, who leads, what it publishes and says.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use svid_csi::pki::TrustBundle;

use crate::{
    ground::{Ground, NAMESPACE, TRUST_DOMAIN},
    patience::eventually,
    pod::Pod,
};

const DEPLOYMENT: &str = "svid-csi-controller";
const SELECTOR: &str = "app.kubernetes.io/component=controller";
/// Its Lease, its bundle and, for nobody but it, its CA.
const LEASE: &str = "svid-csi-controller";
pub const BUNDLE: &str = "svid-csi-bundle";
pub const CA_SECRET: &str = "svid-csi-ca-keys";
pub const REPLICAS: usize = 2;
const LIMIT: Duration = Duration::from_secs(90);
/// For a step of the CA's life: the propagation time, and a Lease that has to run out.
pub const STEP: Duration = Duration::from_mins(3);

pub struct Control<'a> {
    ground: &'a Ground,
}

// === impl Control ===

impl<'a> Control<'a> {
    pub fn of(ground: &'a Ground) -> Self {
        Self { ground }
    }

    pub fn pods(&self) -> Result<Vec<Pod>> {
        self.ground.cluster.pods(NAMESPACE, SELECTOR)
    }

    /// The replica that leads, as the Lease has it.
    pub fn leader(&self) -> Result<Pod> {
        let lease = self.ground.cluster.get(NAMESPACE, "lease", LEASE)?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        // Beside the name it says which start of the process it was.
        let pod = holder.rsplit_once('_').map_or(holder.as_str(), |(pod, _)| pod);
        let found = self.pods()?.into_iter().find(|found| found.name == pod);
        found.with_context(|| format!("no controller pod is the Lease's holder '{holder}'"))
    }

    /// SIGKILL to a replica; kubelet starts it again.
    pub fn kill(&self, pod: &Pod) -> Result<()> {
        let pid = pod.process(&pod.container()?.name)?;
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
        Ok(())
    }

    /// Takes a replica's pod away at once; the Deployment makes another.
    pub fn remove(&self, pod: &Pod) -> Result<()> {
        let args = ["-n", NAMESPACE, "delete", "pod", &pod.name, "--grace-period=0", "--force"];
        self.ground.cluster.kubectl(args).map(drop)
    }

    /// So many replicas from now on. Waits until the others have gone, or these are ready.
    pub fn scale(&self, replicas: usize) -> Result<()> {
        self.ask_for(replicas)?;
        self.settled(replicas)
    }

    /// The same without waiting.
    pub fn ask_for(&self, replicas: usize) -> Result<()> {
        let count = format!("--replicas={replicas}");
        let deployment = format!("deployment/{DEPLOYMENT}");
        self.ground.cluster.kubectl(["-n", NAMESPACE, "scale", &deployment, &count]).map(drop)
    }

    /// Waits until exactly so many replicas are there and ready.
    pub fn settled(&self, replicas: usize) -> Result<()> {
        eventually(&format!("{replicas} ready controllers"), LIMIT, || {
            let pods = self.ground.cluster.list(NAMESPACE, "pods", SELECTOR)?;
            ensure!(pods.len() == replicas, "{} are there", pods.len());
            for pod in self.pods()? {
                ensure!(pod.is_ready(), "{} is {}", pod.name, pod.state());
            }
            Ok(())
        })
    }

    /// The trust bundle that it has published.
    pub fn bundle(&self) -> Result<TrustBundle> {
        let domain = TRUST_DOMAIN.parse().map_err(|error| anyhow!("{error}"))?;
        let json = self.published("bundle.json")?;
        Ok(TrustBundle::from_jwks(domain, json.as_bytes())?)
    }

    /// What `svid-csi ca show` shows.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.published("status.json")?).context("status.json")
    }

    /// The CAs in this state, by ID.
    pub fn authorities(&self, state: &str) -> Result<Vec<String>> {
        let status = self.status()?;
        let all = status["authorities"].as_array().into_iter().flatten();
        let found = all.filter(|authority| authority["state"] == state);
        Ok(found.map(|a| a["id"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// The JWT keys in this state, by `kid`.
    pub fn jwt_keys(&self, state: &str) -> Result<Vec<String>> {
        let status = self.status()?;
        let all = status["jwtKeys"].as_array().into_iter().flatten();
        let found = all.filter(|key| key["state"] == state);
        Ok(found.map(|key| key["keyId"].as_str().unwrap_or_default().to_owned()).collect())
    }

    fn published(&self, key: &str) -> Result<String> {
        let map = self.ground.cluster.get(NAMESPACE, "configmap", BUNDLE)?;
        let text = map["data"][key].as_str();
        Ok(text.with_context(|| format!("ConfigMap {BUNDLE} has no {key}"))?.to_owned())
    }

    /// `svid-csi ca ARGS…` as an operator runs it: what it printed.
    pub fn ca(&self, args: &[&str]) -> Result<String> {
        let program = env!("CARGO_BIN_EXE_svid-csi");
        let command = ["run", program, "ca"].into_iter().chain(args.iter().copied());
        self.ground.cluster.script(command.chain(["-n", NAMESPACE])).text()
    }

    /// Has it make another CA, and waits until its root is published: the roots until now, and the
    /// new one.
    pub fn rotate(&self) -> Result<(TrustBundle, TrustBundle)> {
        let old = self.bundle()?;
        self.ca(&["rotate", "--no-wait"])?;
        let new = eventually("a new root in the published bundle", STEP, || self.new_root(&old))?;
        Ok((old, new))
    }

    /// The published root that was not among these.
    pub fn new_root(&self, old: &TrustBundle) -> Result<TrustBundle> {
        let all = self.bundle()?;
        let new = all.x509_authorities().iter().find(|root| !old.contains(root));
        let new = new.context("there is no new root yet")?;
        Ok(TrustBundle::new(old.trust_domain().clone(), vec![new.clone()])?)
    }

    /// The audit stream of the replicas that run: an object a decision.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        for pod in self.pods()? {
            let log = self.ground.cluster.logs(NAMESPACE, &pod.name, &pod.container()?.name)?;
            let values = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.extend(values.filter(|value| value["decision"].is_string()));
        }
        Ok(lines)
    }
}
