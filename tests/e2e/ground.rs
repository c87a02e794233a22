//! What every suite stands on: a cluster with the images loaded, a CA and the chart installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    ca::Ca,
    cluster::{Cluster, name_of},
    control::{Control, REPLICAS},
    issuers,
    patience::eventually,
    pod::Pod,
    signer::Signer,
    story::Story,
    workload::Workload,
};

pub const TRUST_DOMAIN: &str = "example.org";
pub const DRIVER: &str = "csi.svid.dev";
/// The chart's namespace, release and DaemonSet.
pub const NAMESPACE: &str = "svid-csi";
pub const RELEASE: &str = "svid-csi";

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const LABEL: &str = "svid.dev/e2e";
const EXAMPLE_IMAGE: &str = "localhost/svid-csi-examples:1";

/// The cluster and what is on it.
pub struct Ground {
    pub cluster: Cluster,
    pub signer: Signer,
    /// `repository:tag` of the driver's image.
    pub image: String,
    /// An image with a shell, openssl and the examples' servers.
    pub example_image: String,
    /// Where results and diagnostics go.
    pub out: PathBuf,
    ca: Mutex<Arc<Ca>>,
    keep: bool,
}

// === impl Ground ===

impl Ground {
    /// By the environment; nothing is started yet.
    pub fn from_environment(signer: Signer) -> Result<Self> {
        let setting = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let out = repository().join("target/e2e");
        fs::create_dir_all(&out)?;
        let own = setting("KUBECONFIG").is_none();
        let directory = setting("CLUSTER_DIR").unwrap_or("/var/tmp/svid-csi-e2e".to_owned());
        let version = env!("CARGO_PKG_VERSION");
        let image = setting("IMAGE").unwrap_or(format!("localhost/svid-csi:{version}"));
        Ok(Self {
            cluster: Cluster::new(own.then(|| directory.into())),
            signer,
            image,
            example_image: setting("EXAMPLE_IMAGE").unwrap_or(EXAMPLE_IMAGE.to_owned()),
            ca: Mutex::new(Arc::new(Ca::make(&out.join("ca"), "e2e")?)),
            out,
            keep: setting("KEEP").is_some_and(|value| value != "0"),
        })
    }

    /// A person's own cluster may have our driver, which pods use: nothing here may touch it.
    pub fn is_free(&self) -> Result<()> {
        if self.cluster.is_ours() || self.keep {
            return Ok(());
        }
        let args = ["get", "csidriver", DRIVER, "--ignore-not-found", "-o", "name"];
        let found = self.cluster.kubectl(args)?;
        ensure!(found.is_empty(), "this cluster has {DRIVER} already; the suites would replace it");
        Ok(())
    }

    /// Brings it all up: a new cluster, unless it is to be kept or is a person's own.
    pub fn lay(&self, story: &Story) -> Result<()> {
        if self.cluster.is_ours() {
            if !self.keep {
                self.cluster.script(["down"]).limit(Duration::from_mins(2)).text()?;
            }
            // The first time, everything is built.
            let up = self.cluster.script(["up", "--nodes", "2"]).limit(Duration::from_mins(45));
            up.shown()?;
            story.step("two nodes are up");
            let images = ["target/image/svid-csi.tar", "target/image/svid-csi-examples.tar"];
            let paths = images.map(|image| repository().join(image).display().to_string());
            self.load(&paths)?;
            story.step("images are loaded");
        }
        self.prepare_namespace()?;
        self.install(&[])?;
        if self.keep {
            // The pods that are there may have an earlier image of the same name.
            let release = format!("app.kubernetes.io/instance={RELEASE}");
            for step in ["restart", "status"] {
                let kinds = ["daemonset,deployment", "-l", &release];
                self.cluster
                    .kubectl(["-n", NAMESPACE, "rollout", step].into_iter().chain(kinds))?;
            }
        }
        story.step("the chart is installed");
        Ok(())
    }

    /// The driver's namespace, where the nodes sign with the CA.
    pub fn prepare_namespace(&self) -> Result<()> {
        self.privileged_namespace(NAMESPACE)?;
        match self.signer {
            Signer::CertManager => issuers::prepare(self),
            Signer::Local => self.cluster.apply(&[self.ca().secret()?]),
            Signer::Csr | Signer::Controller => Ok(()),
        }
    }

    /// From nothing, with another CA.
    pub fn install_anew(&self) -> Result<()> {
        self.uninstall()?;
        self.cluster.delete_namespace(NAMESPACE, Duration::from_mins(2))?;
        self.prepare_namespace()?;
        self.install(&[])
    }

    pub fn uninstall(&self) -> Result<()> {
        self.cluster.helm(["uninstall", RELEASE, "-n", NAMESPACE, "--wait"]).text().map(drop)
    }

    /// A namespace in which a driver may run.
    pub fn privileged_namespace(&self, name: &str) -> Result<()> {
        self.labelled_namespace(name, "pod-security.kubernetes.io/enforce", "privileged")
    }

    fn labelled_namespace(&self, name: &str, label: &str, value: &str) -> Result<()> {
        self.cluster.apply(&[json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {label: value}},
        })])
    }

    /// The CA whose Secret the drivers have with `SIGNER=local`, unless a suite has just broken it.
    pub fn ca(&self) -> Arc<Ca> {
        Arc::clone(&self.ca.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another CA into the Secret.
    pub fn replace_ca(&self, ca: Ca) -> Result<()> {
        self.cluster.apply(&[ca.secret()?])?;
        *self.ca.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(ca);
        Ok(())
    }

    /// Applies an example, in a person's own cluster with the image that it can pull. Its namespace
    /// is deleted after the suite.
    pub fn apply_example(&self, manifest: &str) -> Result<()> {
        let manifest = manifest.replace(EXAMPLE_IMAGE, &self.example_image);
        self.cluster.apply_text(&manifest)?;
        for namespace in namespaces(&manifest) {
            let label = format!("{LABEL}=true");
            self.cluster.kubectl(["label", "--overwrite", "namespace", namespace, &label])?;
        }
        Ok(())
    }

    /// Installs or upgrades the chart with the suites' values and these `--set`s, and waits.
    pub fn install(&self, sets: &[&str]) -> Result<()> {
        self.install_with(self.signer, sets)
    }

    /// The same with another signer.
    pub fn install_with(&self, signer: Signer, sets: &[&str]) -> Result<()> {
        let chart = chart().display().to_string();
        let mut args = vec!["upgrade", "--install", RELEASE, &chart, "-n", NAMESPACE, "--wait"];
        let mut values = self.values()?;
        values.extend(signer.values());
        for value in values.iter().map(String::as_str).chain(sets.iter().copied()) {
            args.extend(["--set", value]);
        }
        args.extend(["--timeout", "2m"]);
        self.cluster.helm(args).text().map(drop)
    }

    /// What every installation of the chart needs.
    pub fn values(&self) -> Result<Vec<String>> {
        let (name, tag) = self.image.rsplit_once(':').context("IMAGE must be repository:tag")?;
        Ok(vec![
            format!("trustDomain={TRUST_DOMAIN}"),
            format!("image.repository={name}"),
            format!("image.tag={tag}"),
        ])
    }

    /// A new namespace for a suite; it is deleted after it.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.labelled_namespace(name, LABEL, "true")?;
        // Pods made before it are refused.
        eventually("the namespace's ServiceAccount", Duration::from_secs(20), || {
            self.cluster.get(name, "serviceaccount", "default").map(drop)
        })
    }

    /// A pod to be made with the examples' image.
    pub fn workload(&self, namespace: &str, name: &str) -> Workload {
        Workload::new(namespace, name, &self.example_image)
    }

    /// The driver's pods, one a node.
    pub fn driver_pods(&self) -> Result<Vec<Pod>> {
        self.cluster.pods(NAMESPACE, "app.kubernetes.io/component=node")
    }

    pub fn driver_pod(&self, node: &str) -> Result<Pod> {
        let found = self.driver_pods()?.into_iter().find(|pod| pod.node == node);
        found.with_context(|| format!("no driver on {node}"))
    }

    /// The driver is ready on every node.
    pub fn driver_is_ready(&self, limit: Duration) -> Result<()> {
        let nodes = self.cluster.nodes()?;
        eventually("a ready driver on every node", limit, || {
            let pods = self.driver_pods()?;
            for node in &nodes {
                let pod = pods.iter().find(|pod| pod.node == *node);
                let pod = pod.with_context(|| format!("no driver on {node}"))?;
                ensure!(pod.is_ready(), "the driver on {node} is {}", pod.state());
            }
            Ok(())
        })
    }

    /// After a suite: its namespaces go, and with them every mount and directory of their pods.
    pub fn sweep(&self) -> Result<()> {
        let namespaces = self.cluster.list("", "namespaces", LABEL)?;
        if !namespaces.is_empty() {
            let names = namespaces.iter().map(name_of);
            let args = ["delete", "namespace", "--ignore-not-found", "--timeout=100s"];
            self.cluster.kubectl(args.into_iter().chain(names))?;
        }
        self.driver_is_ready(Duration::from_mins(1))?;
        if self.signer.is_decided() {
            Control::of(self).settled(REPLICAS)?;
        }
        if self.cluster.is_ours() {
            eventually("volumes of deleted pods to go", Duration::from_mins(1), || {
                for node in self.cluster.nodes()? {
                    let left = self.cluster.node(&node).volumes()?;
                    ensure!(left.is_empty(), "{} are left on {node}: {:?}", left.len(), left[0]);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Leaves nothing, unless it is to be kept.
    pub fn clear(&self) -> Result<()> {
        if self.keep {
            let hint = self.cluster.hint();
            crate::say(&format!("KEEP: the cluster is up; {hint}"));
            return Ok(());
        }
        if self.cluster.is_ours() {
            let down = self.cluster.script(["down"]).stubborn().limit(Duration::from_mins(3));
            return down.text().map(drop);
        }
        self.sweep()?;
        self.uninstall()?;
        self.cluster.delete_namespace(NAMESPACE, Duration::from_mins(2))
    }
}

/// The namespaces that a manifest makes.
pub fn namespaces(manifest: &str) -> Vec<&str> {
    let objects = manifest.split("\n---").filter(|object| object.contains("\nkind: Namespace\n"));
    let name = |object: &'_ str| -> Option<usize> { object.find("\n  name: ") };
    objects
        .filter_map(|object| object.get(name(object)? + 9..)?.lines().next())
        .map(str::trim)
        .collect()
}

/// The top of the checkout.
pub fn repository() -> &'static Path {
    Path::new(ROOT)
}

pub fn chart() -> PathBuf {
    repository().join("deploy/charts/svid-csi")
}
