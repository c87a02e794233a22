//! Pods in continuous mutual TLS with each other, whatever happens around them.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE};
use serde::Deserialize;
use serde_json::json;
use svid_csi::pki::TrustBundle;

use crate::{
    ground::{Ground, TRUST_DOMAIN},
    patience::{eventually, now},
    pod::Pod,
    set::Set,
    workload::{CONTAINER, MOUNT},
};

const PROGRAM: &str = include_str!("peer.py");
/// Between two calls of a pod: fifty pods are fifty handshakes a second then.
const PERIOD: &str = "1";
const START: Duration = Duration::from_mins(4);
/// For a renewal, on a busy machine.
const RENEWAL: Duration = Duration::from_mins(3);

/// The pods of a namespace, each of which calls all others in turn.
pub struct Load<'a> {
    ground: &'a Ground,
    namespace: &'a str,
    pods: Vec<Pod>,
}

/// What the pods say of themselves, summed up.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Tally {
    /// Handshakes as a client.
    pub calls: u64,
    /// And as a server.
    pub served: u64,
    /// JWT-SVIDs of clients, each verified by an independent library and the own bundle.
    pub tokens: u64,
    /// How often a set was replaced by the next.
    pub reloads: i64,
    /// TCP connections that came only at another try.
    pub retries: u64,
    failures: Vec<String>,
}

// === impl Load ===

impl<'a> Load<'a> {
    /// Starts so many pods over all nodes and lets them call each other.
    pub fn start(ground: &'a Ground, namespace: &'a str, count: usize, ttl: &str) -> Result<Self> {
        Self::start_with(ground, namespace, count, &[("ttl", ttl)])
    }

    /// The same with JWT-SVIDs, which callers send and servers verify.
    pub fn with_tokens(
        ground: &'a Ground,
        namespace: &'a str,
        count: usize,
        ttl: &str,
    ) -> Result<Self> {
        Self::start_with(ground, namespace, count, &[("ttl", ttl), ("jwt", "peers.jwt=peers")])
    }

    fn start_with(
        ground: &'a Ground,
        namespace: &'a str,
        count: usize,
        attributes: &[(&str, &str)],
    ) -> Result<Self> {
        ground.namespace(namespace)?;
        let nodes = ground.cluster.nodes()?;
        let program = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "peer", "namespace": namespace},
            "data": {"peer.py": PROGRAM},
        });
        let mut objects = vec![program];
        for n in 0..count {
            let pod = ground.workload(namespace, &format!("peer-{n:02}"));
            let pod = pod.on(&nodes[n % nodes.len()]);
            let mut pod = attributes.iter().fold(pod, |pod, (key, value)| pod.with(key, value));
            add_program(pod.spec(), namespace);
            objects.push(pod.object());
        }
        ground.cluster.apply(&objects)?;
        let pods = ground.cluster.ready_pods(namespace, count, START)?;
        let load = Self { ground, namespace, pods };
        load.introduce()?;
        let told = || load.pods.iter().try_for_each(|pod| tally(pod).map(drop));
        eventually("the first words of every pod", START, told)?;
        load.goes_on()?;
        Ok(load)
    }

    /// Tells every pod where the others are.
    fn introduce(&self) -> Result<()> {
        let objects = self.ground.cluster.list(self.namespace, "pods", "")?;
        let address = |pod: &serde_json::Value| pod["status"]["podIP"].as_str().map(str::to_owned);
        let addresses: Option<Vec<_>> = objects.iter().map(address).collect();
        let addresses = addresses.context("a pod has no address")?.join("\n");
        eventually("every pod to listen", START, || {
            for pod in &self.pods {
                let listens = pod.root(CONTAINER)?.join("tmp/listens").exists();
                ensure!(listens, "{} does not", pod.name);
            }
            Ok(())
        })?;
        for pod in &self.pods {
            let tmp = pod.root(CONTAINER)?.join("tmp");
            fs::write(tmp.join("peers.new"), &addresses)?;
            fs::rename(tmp.join("peers.new"), tmp.join("peers"))?;
        }
        Ok(())
    }

    /// No handshake has failed, and no container was restarted: what was seen so far.
    pub fn check(&self) -> Result<Tally> {
        let mut sum = Tally::default();
        let mut failures = Vec::new();
        for pod in &self.pods {
            let tally = tally(pod)?;
            sum.calls += tally.calls;
            sum.served += tally.served;
            sum.tokens += tally.tokens;
            sum.reloads += tally.reloads;
            sum.retries += tally.retries;
            failures
                .extend(tally.failures.iter().map(|failure| format!("{}: {failure}", pod.name)));
        }
        if let Some(first) = failures.first() {
            bail!("{} handshakes failed, such as {first}", failures.len());
        }
        Ok(sum)
    }

    /// Looks until `look` finds what it wants; gives up as soon as a handshake has failed.
    pub fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        eventually(what, within, || match self.check() {
            Ok(_) => look().map(Ok),
            Err(failed) => Ok(Err(failed)),
        })?
    }

    /// The same containers as at first run, and have made another few calls each.
    pub fn goes_on(&self) -> Result<()> {
        let before = self.pods.iter().map(calls).collect::<Vec<_>>();
        self.until("more calls of every pod", RENEWAL, || {
            for (pod, before) in self.pods.iter().zip(&before) {
                let now = calls(pod);
                ensure!(now >= before + 3, "{} has made {} calls since", pod.name, now - before);
            }
            Ok(())
        })?;
        self.unharmed()
    }

    fn unharmed(&self) -> Result<()> {
        let now = self.ground.cluster.pods(self.namespace, "")?;
        for pod in &self.pods {
            let same = now.iter().find(|other| other.uid == pod.uid);
            let same = same.with_context(|| format!("{} has gone", pod.name))?;
            ensure!(same.lives() == pod.lives(), "a container of {} was restarted", pod.name);
        }
        Ok(())
    }

    /// Waits until every pod trusts all these roots.
    pub fn trusts(&self, roots: &TrustBundle) -> Result<()> {
        self.wait("the roots in every volume", RENEWAL, |set| {
            roots.x509_authorities().iter().all(|root| set.bundle.contains(root))
        })
    }

    /// Waits until every pod's SVID is under one of these roots.
    pub fn is_under(&self, roots: &TrustBundle, within: Duration) -> Result<()> {
        self.wait("SVIDs under the CA", within, |set| set.svid.verify_chain(roots, now()).is_ok())
    }

    /// Waits until every pod's bundle has this JWT key.
    pub fn knows(&self, kid: &str) -> Result<()> {
        self.wait("the JWT key in every volume", RENEWAL, |set| {
            set.files.get("bundle.json").is_some_and(|bundle| bundle.contains(kid))
        })
    }

    /// Waits until every pod's JWT-SVID is signed with this key.
    pub fn is_signed_with(&self, kid: &str, within: Duration) -> Result<()> {
        self.wait("JWT-SVIDs by the new key", within, |set| {
            set.files.get("peers.jwt").and_then(|token| kid_of(token)).as_deref() == Some(kid)
        })
    }

    fn wait(&self, what: &str, within: Duration, wanted: impl Fn(&Set) -> bool) -> Result<()> {
        let mut lacking: Vec<_> = self.pods.iter().collect();
        self.until(what, within, || {
            let mut still = Vec::new();
            for pod in &lacking {
                let set = pod.set(CONTAINER, MOUNT)?;
                if !wanted(&set) {
                    still.push(*pod);
                }
            }
            lacking = still;
            let first = lacking.first().map_or("", |pod| pod.name.as_str());
            ensure!(lacking.is_empty(), "not yet in {} pods, such as {first}", lacking.len());
            Ok(())
        })
    }
}

/// Its program in the place of the sleep, and where it writes.
fn add_program(spec: &mut serde_json::Value, namespace: &str) {
    let own = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa");
    let container = &mut spec["containers"][0];
    container["command"] = json!(["python3", "/peer/peer.py", PERIOD, own, "$(POD_IP)"]);
    let address = json!({"fieldRef": {"fieldPath": "status.podIP"}});
    container["env"] = json!([{"name": "POD_IP", "valueFrom": address}]);
    for (list, items) in [
        (
            "/containers/0/volumeMounts",
            [
                json!({"name": "peer", "mountPath": "/peer"}),
                json!({"name": "tmp", "mountPath": "/tmp"}),
            ],
        ),
        (
            "/volumes",
            [
                json!({"name": "peer", "configMap": {"name": "peer"}}),
                json!({"name": "tmp", "emptyDir": {"medium": "Memory"}}),
            ],
        ),
    ] {
        if let Some(list) = spec.pointer_mut(list).and_then(serde_json::Value::as_array_mut) {
            list.extend(items);
        }
    }
}

/// What a pod says of itself.
fn tally(pod: &Pod) -> Result<Tally> {
    let path = pod.root(CONTAINER)?.join("tmp/tally");
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} says nothing yet", pod.name))?;
    Ok(serde_json::from_str(&text)?)
}

/// Which key signed a token, as its header has it.
fn kid_of(token: &str) -> Option<String> {
    let header = URL_SAFE.decode(token.trim().split('.').next()?).ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    header["kid"].as_str().map(ToOwned::to_owned)
}

fn calls(pod: &Pod) -> u64 {
    tally(pod).map_or(0, |tally| tally.calls)
}
