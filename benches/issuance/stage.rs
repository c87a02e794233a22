//! The objects: a driver on a node without a kubelet, its pods, and the controller's process.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use svid_csi::volume::PodInfo;
use tempfile::TempDir;

use crate::tools::Tools;

pub const NAMESPACE: &str = "svid-csi";
pub const NODE: &str = "bench";
const PODS: &str = "bench";
/// So many ServiceAccounts share the pods.
const ACCOUNTS: usize = 50;
const LISTEN: &str = "127.0.0.1:9810";
const START: Duration = Duration::from_mins(3);

/// Dropped, the controller ends.
pub struct Stage {
    given: Given,
    /// The driver's kubeconfig.
    driver: PathBuf,
    controller: Child,
    scratch: TempDir,
}

/// What the measuring part is told.
pub struct Given {
    pub pods: Vec<PodInfo>,
    /// The administrator's kubeconfig.
    pub admin: PathBuf,
}

const PODS_FILE: &str = "SVID_CSI_BENCH_PODS";
const ADMIN: &str = "SVID_CSI_BENCH_ADMIN";

// === impl Stage ===

impl Stage {
    pub fn set(tools: &Tools, pods: usize) -> Self {
        let namespace = |name: &str| {
            json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
            })
        };
        tools.apply(&[namespace(NAMESPACE), namespace(PODS)]);
        tools.apply(&tools.chart());
        let definition = "crd/svidpolicies.svid.dev";
        tools.kubectl(&["wait", "--for=condition=Established", definition], "");
        tools.apply(&[json!({
            "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
            "metadata": {"name": "default"}, "spec": {"priority": -1000},
        })]);
        tools.apply(&[json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            // No kubelet would take its pods away.
            "spec": {"unschedulable": true},
        })]);
        let account = |n: usize| {
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": format!("app-{n}"), "namespace": PODS},
            })
        };
        tools.apply(&(0..ACCOUNTS).map(account).collect::<Vec<_>>());
        tools.apply(&[pod(NAMESPACE, "driver", "svid-csi")]);
        let pods = made(tools, pods);

        let scratch = tempfile::tempdir().unwrap();
        let admin = scratch.path().join("admin.kubeconfig");
        fs::copy(env::var_os("KUBECONFIG").unwrap(), &admin).unwrap();
        let bound = ["--bound-object-kind=Pod", "--bound-object-name=driver"];
        let driver = access(tools, scratch.path(), "svid-csi", &bound);
        let access = access(tools, scratch.path(), "svid-csi-controller", &[]);
        let controller = Command::new(env!("CARGO_BIN_EXE_svid-csi"))
            .args(["controller", "--kubeconfig", "--namespace", NAMESPACE])
            .args(["--trust-domain", "example.org", "--http-listen", LISTEN])
            .args(["--driver-service-account", "svid-csi/svid-csi", "--ca-propagation", "2s"])
            .args(["--log-level", "warn"])
            .env("KUBECONFIG", &access)
            // The audit stream costs what it costs.
            .stdout(fs::File::create(scratch.path().join("audit")).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let stage = Self { given: Given { pods, admin }, driver, controller, scratch };
        stage.wait();
        stage
    }

    /// Plays the last part, and says how it ended.
    pub fn measured(self) -> ExitCode {
        let pods = self.scratch.path().join("pods.json");
        fs::write(&pods, self.given.to_json()).unwrap();
        let done = Command::new(env::current_exe().unwrap())
            .env(crate::PART, "measure")
            .env("KUBECONFIG", &self.driver)
            .env(PODS_FILE, &pods)
            .env(ADMIN, &self.given.admin)
            .status();
        if done.unwrap().success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Until the controller can sign.
    fn wait(&self) {
        let began = Instant::now();
        let ready = || {
            let url = format!("http://{LISTEN}/readyz");
            let mut command = Command::new("busybox");
            command.args(["wget", "-q", "-O", "/dev/null", &url]).stderr(Stdio::null());
            command.status().unwrap().success()
        };
        while !ready() {
            assert!(began.elapsed() < START, "the controller is not ready");
            nap(Duration::from_millis(200));
        }
    }
}

// === impl Given ===

impl Given {
    pub fn from_environment() -> Self {
        let text = fs::read_to_string(env::var_os(PODS_FILE).unwrap()).unwrap();
        let all: Vec<[String; 4]> = serde_json::from_str(&text).unwrap();
        let pod = |[namespace, name, uid, service_account]: [String; 4]| PodInfo {
            namespace,
            name,
            uid,
            service_account,
        };
        let pods = all.into_iter().map(pod).collect();
        Self { pods, admin: env::var_os(ADMIN).unwrap().into() }
    }

    fn to_json(&self) -> String {
        let fields = |pod: &PodInfo| json!([pod.namespace, pod.name, pod.uid, pod.service_account]);
        self.pods.iter().map(fields).collect::<Value>().to_string()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.controller.kill();
        let _ = self.controller.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when another process is ready")]
pub fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// A pod that is only an object.
fn pod(namespace: &str, name: &str, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "bench"}},
        "spec": {
            "nodeName": NODE,
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "app", "image": "localhost/none",
                "volumeMounts": [{"name": "svid", "mountPath": "/svid"}],
            }],
            "volumes": [{"name": "svid", "csi": {"driver": "csi.svid.dev", "readOnly": true}}],
        },
    })
}

/// The pods, as the API server has them.
fn made(tools: &Tools, count: usize) -> Vec<PodInfo> {
    let name = |n: usize| format!("pod-{n:05}");
    let account = |n: usize| format!("app-{}", n % ACCOUNTS);
    let objects: Vec<_> = (0..count).map(|n| pod(PODS, &name(n), &account(n))).collect();
    for part in objects.chunks(500) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": part});
        tools.kubectl(&["create", "-f", "-"], &list.to_string());
    }
    println!("{count} pods exist as objects");
    let all = tools.get(&["pods", "-n", PODS]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let info = |pod: &Value| PodInfo {
        namespace: PODS.to_owned(),
        name: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        service_account: text(&pod["spec"]["serviceAccountName"]),
    };
    all["items"].as_array().unwrap().iter().map(info).collect()
}

/// A kubeconfig with a ServiceAccount's token.
fn access(tools: &Tools, scratch: &Path, account: &str, bound: &[&str]) -> PathBuf {
    let args = ["-n", NAMESPACE, "create", "token", account, "--duration=6h"];
    let args: Vec<_> = args.into_iter().chain(bound.iter().copied()).collect();
    let token = tools.kubectl(&args, "");
    let shown = tools.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], "");
    let mut config: Value = serde_json::from_str(&shown).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = scratch.join(format!("{account}.kubeconfig"));
    fs::write(&path, config.to_string()).unwrap();
    path
}
