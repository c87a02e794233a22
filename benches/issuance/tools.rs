//! The programs around: `hack/cluster`, and in its network kubectl and helm.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub struct Tools {
    directory: String,
    /// Another kubeconfig than that of the environment.
    kubeconfig: Option<PathBuf>,
}

// === impl Tools ===

impl Tools {
    pub fn new() -> Self {
        let directory = std::env::var("CLUSTER_DIR").ok().filter(|value| !value.is_empty());
        let directory = directory.unwrap_or_else(|| "/var/tmp/svid-csi-bench".to_owned());
        Self { directory, kubeconfig: None }
    }

    pub fn of(kubeconfig: &Path) -> Self {
        Self { kubeconfig: Some(kubeconfig.to_owned()), ..Self::new() }
    }

    /// `hack/cluster ARGS…`; whether it went well.
    pub fn cluster(&self, args: &[&str]) -> bool {
        let mut command = Command::new(format!("{ROOT}/hack/cluster"));
        command.args(args).env("CLUSTER_DIR", &self.directory).stdin(Stdio::null());
        command.status().unwrap().success()
    }

    /// `kubectl ARGS…` as administrator: what it printed.
    pub fn kubectl(&self, args: &[&str], input: &str) -> String {
        match &self.kubeconfig {
            Some(path) => {
                let config = format!("--kubeconfig={}", path.display());
                let args: Vec<_> =
                    [config.as_str()].into_iter().chain(args.iter().copied()).collect();
                run("kubectl", &args, input)
            }
            None => run("kubectl", args, input),
        }
    }

    pub fn apply(&self, objects: &[Value]) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl(&["apply", "-f", "-"], &list.to_string());
    }

    pub fn get(&self, args: &[&str]) -> Value {
        let args: Vec<_> = ["get"].into_iter().chain(args.iter().copied()).collect();
        let args: Vec<_> = args.into_iter().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.kubectl(&args, "")).unwrap()
    }

    /// What the chart renders, without what runs pods.
    pub fn chart(&self) -> Vec<Value> {
        let chart = format!("{ROOT}/deploy/charts/svid-csi");
        let sets = ["--set", "trustDomain=example.org,networkPolicy.enabled=false"];
        let args = ["template", "svid-csi", &chart, "-n", "svid-csi", "--include-crds"];
        let args: Vec<_> = args.into_iter().chain(sets).collect();
        let text = run("helm", &args, "");
        let args = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
        let mut objects = Vec::new();
        for document in text.split("\n---\n").filter(|document| document.contains("\nkind: ")) {
            if ["DaemonSet", "Deployment", "SvidPolicy", "PodDisruptionBudget"]
                .iter()
                .any(|kind| document.contains(&format!("\nkind: {kind}\n")))
            {
                continue;
            }
            objects.push(serde_json::from_str(&self.kubectl(&args, document)).unwrap());
        }
        objects
    }
}

fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().unwrap();
    let _ = writer.join();
    assert!(done.status.success(), "{program} {args:?}: {}", done.status);
    String::from_utf8(done.stdout).unwrap()
}
