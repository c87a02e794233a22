//! Node A in the attacker's hands.

use std::{cell::RefCell, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    command::Done,
    control::Control,
    ground::{Ground, NAMESPACE},
    patience::eventually,
    pod::Pod,
};

use super::request::{COLLECTION, Request};

pub const PODS: &str = "e2e-attack";
pub const DRIVER_ACCOUNT: &str = "svid-csi";
pub const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";
const START: Duration = Duration::from_mins(2);
const DECISION: Duration = Duration::from_mins(1);

/// What stands where, and the attacker's means.
pub struct Field<'a> {
    pub ground: &'a Ground,
    /// Node A and its UID.
    pub here: String,
    pub here_uid: String,
    /// Node B and its UID.
    pub there: String,
    pub there_uid: String,
    /// The token in the driver's pod on node A.
    pub driver: Credentials,
    /// That node's kubelet's certificate.
    pub kubelet: Credentials,
    /// Pods: on node A; on node B; on A, but without our volume; on A and done.
    pub own: Pod,
    pub victim: Pod,
    pub plain: Pod,
    pub done: Pod,
    /// On node A, deleted a while ago, and its kubelet does not end it.
    pub deleted: Pod,
    made: RefCell<Vec<String>>,
    audit: RefCell<Vec<Value>>,
    scratch: TempDir,
}

/// Who asks: a kubeconfig.
pub struct Credentials(String);

/// What came of an attack.
pub enum Outcome {
    /// The API server took it not.
    Refused(String),
    /// The controller denied it.
    Denied { uid: String, reason: String, message: String },
    /// The controller did not sign it.
    Failed { uid: String, reason: String, message: String },
    /// It worked.
    Won(String),
}

// === impl Field ===

impl<'a> Field<'a> {
    /// Starts the pods, moves the controllers to node B and takes node A.
    pub fn taken(ground: &'a Ground) -> Result<Self> {
        let cluster = &ground.cluster;
        let nodes = cluster.nodes()?;
        let [here, there] = &nodes[..] else { bail!("two nodes are needed") };
        ground.install(&[&format!("controller.nodeSelector.kubernetes\\.io/hostname={there}")])?;
        for pod in Control::of(ground).pods()? {
            ensure!(pod.node == *there, "a controller is on {}", pod.node);
        }
        ground.namespace(PODS)?;
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "victim", "namespace": PODS},
        });
        // No kubelet is heard of for minutes: the pods of node A must not be evicted meanwhile.
        let here_pod = |name: &str| {
            let mut pod = ground.workload(PODS, name).on(here);
            pod.spec()["tolerations"] = json!([{"operator": "Exists"}]);
            pod
        };
        let mut victim = ground.workload(PODS, "victim").on(there);
        victim.spec()["serviceAccountName"] = "victim".into();
        let plain = here_pod("plain").volume(json!({"emptyDir": {}}));
        let mut done = here_pod("done");
        done.spec()["restartPolicy"] = "Never".into();
        done.spec()["containers"][0]["command"] = json!(["true"]);
        cluster.apply(&[
            account,
            here_pod("own").object(),
            here_pod("deleted").object(),
            victim.object(),
            plain.object(),
            done.object(),
        ])?;
        let ready = |name: &str, phase: &str| {
            eventually(&format!("{name} to be {phase}"), START, || {
                let pod = cluster.pod(PODS, name)?;
                ensure!(pod.phase == phase, "it is {}", pod.state());
                Ok(pod)
            })
        };
        let [own, deleted, victim, plain] =
            ["own", "deleted", "victim", "plain"].map(|name| ready(name, "Running"));
        let done = ready("done", "Succeeded")?;

        let scratch = tempfile::tempdir()?;
        let driver = ground.driver_pod(here)?;
        let token = fs::read_to_string(driver.root(&driver.container()?.name)?.join(TOKEN))
            .context("the token in the driver's pod")?;
        let config = cluster.state()?.join("pki").join(format!("{here}.kubeconfig"));
        let uid = |node: &str| -> Result<String> {
            let node = cluster.get("", "node", node)?;
            Ok(node["metadata"]["uid"].as_str().context("no UID")?.to_owned())
        };
        let field = Self {
            ground,
            driver: Credentials::of_token(cluster, scratch.path(), "driver", token.trim())?,
            kubelet: Credentials(config.display().to_string()),
            here_uid: uid(here)?,
            there_uid: uid(there)?,
            here: here.clone(),
            there: there.clone(),
            own: own?,
            victim: victim?,
            plain: plain?,
            done,
            deleted: deleted?,
            made: RefCell::default(),
            audit: RefCell::default(),
            scratch,
        };
        cluster.service("stop", "kubelet", here)?;
        let args = ["-n", PODS, "delete", "pod", "deleted", "--wait=false"];
        cluster.kubectl(args)?;
        Ok(field)
    }

    /// What the attacker made goes, and the node's own kubelet comes back.
    pub fn given_back(&self) -> Result<()> {
        let made = self.made.borrow();
        if !made.is_empty() {
            let args = ["delete", "--ignore-not-found", "csr"];
            self.ground.cluster.kubectl(args.into_iter().chain(made.iter().map(String::as_str)))?;
        }
        self.ground.cluster.service("start", "kubelet", &self.here)?;
        self.ground.driver_is_ready(START)
    }

    /// Keeps the audit stream until now: it ends with a replica.
    pub fn listen(&self) -> Result<()> {
        let lines = Control::of(self.ground).audit()?;
        self.audit.borrow_mut().extend(lines);
        Ok(())
    }

    pub fn heard(&self) -> Vec<Value> {
        self.audit.borrow().clone()
    }

    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub fn cluster(&self) -> &Cluster {
        &self.ground.cluster
    }

    /// Credentials of another token.
    pub fn token(&self, name: &str, token: &str) -> Result<Credentials> {
        Credentials::of_token(self.cluster(), self.scratch(), name, token.trim())
    }

    /// The attacker asks the controller for a certificate.
    pub fn ask(&self, who: &Credentials, request: &Request) -> Result<Outcome> {
        let object = request.object(self)?;
        self.made.borrow_mut().push(request.name.clone());
        let args = ["create", "--raw", COLLECTION, "-f", "-"];
        let done = who.kubectl(self.cluster(), args, &object.to_string())?;
        if !done.status.success() {
            return refused(&done);
        }
        self.decided(&request.name)
    }

    /// Waits for the controller's last word.
    pub fn decided(&self, name: &str) -> Result<Outcome> {
        eventually(&format!("a decision about {name}"), DECISION, || {
            let object = self.cluster().get("", "csr", name)?;
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            if let Some(certificate) = object["status"]["certificate"].as_str() {
                let pem = STANDARD.decode(certificate)?;
                return Ok(Outcome::Won(String::from_utf8_lossy(&pem).into_owned()));
            }
            for kind in ["Failed", "Denied"] {
                if let Some((reason, message)) = condition(&object, kind) {
                    return Ok(match kind {
                        "Denied" => Outcome::Denied { uid, reason, message },
                        _ => Outcome::Failed { uid, reason, message },
                    });
                }
            }
            bail!("its status is {}", object["status"])
        })
    }

    /// The attacker asks the API server for anything else.
    pub fn attempt<'s>(
        &self,
        who: &Credentials,
        args: impl IntoIterator<Item = &'s str>,
        input: &str,
    ) -> Result<Outcome> {
        let done = who.kubectl(self.cluster(), args, input)?;
        match done.status.success() {
            true => Ok(Outcome::Won(done.stdout.lines().next().unwrap_or_default().to_owned())),
            false => refused(&done),
        }
    }

    /// A token of the driver's ServiceAccount, as an administrator makes it.
    pub fn driver_token(&self, bound: &[&str]) -> Result<String> {
        let args = ["-n", NAMESPACE, "create", "token", DRIVER_ACCOUNT];
        self.cluster().kubectl(args.into_iter().chain(bound.iter().copied()))
    }

    /// To be deleted at the end.
    pub fn note(&self, request: &Request) {
        self.made.borrow_mut().push(request.name.clone());
    }
}

/// Not every failure is a refusal.
fn refused(done: &Done) -> Result<Outcome> {
    let said = done.stderr.trim().to_owned();
    let word = ["(Forbidden)", "is invalid", "(Invalid)", "(Unauthorized)", "(BadRequest)"];
    ensure!(word.iter().any(|word| said.contains(word)), "not a refusal but: {}", done.stderr);
    Ok(Outcome::Refused(said))
}

fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("reason"), text("message")))
}

// === impl Credentials ===

impl Credentials {
    fn of_token(cluster: &Cluster, scratch: &Path, name: &str, token: &str) -> Result<Self> {
        let path = scratch.join(format!("{name}.kubeconfig"));
        let admin = cluster.kubectl(["config", "view", "--raw", "--minify", "-o", "json"])?;
        let mut config: Value = serde_json::from_str(&admin)?;
        config["users"][0]["user"] = json!({"token": token});
        fs::write(&path, config.to_string())?;
        Ok(Self(path.display().to_string()))
    }

    /// `kubectl` as who they are.
    pub fn kubectl<'s>(
        &self,
        cluster: &Cluster,
        args: impl IntoIterator<Item = &'s str>,
        input: &str,
    ) -> Result<Done> {
        let config = format!("--kubeconfig={}", self.0);
        let args: Vec<&str> = args.into_iter().collect();
        let all = [config.as_str()].into_iter().chain(args.iter().copied());
        cluster.kubectl_run(all).input(input).done()
    }
}

/// Without the names and values that the refusal repeats.
fn shortened(said: &str) -> String {
    let said = said.split("\": ").last().unwrap_or_default();
    let said = said.split(" is forbidden: ").last().unwrap_or_default();
    said.chars().take(160).collect()
}

// === impl Outcome ===

impl Outcome {
    /// A word and the reason.
    pub fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Refused(said) => ("refused", shortened(said)),
            Self::Denied { reason, message, .. } => ("denied", format!("{reason}: {message}")),
            Self::Failed { reason, message, .. } => ("failed", format!("{reason}: {message}")),
            Self::Won(what) => ("WON", what.lines().next().unwrap_or_default().to_owned()),
        }
    }

    pub fn seen(&self) -> String {
        let (word, reason) = self.parts();
        format!("{word}: {reason}")
    }
}
