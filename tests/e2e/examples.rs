//! Every example as it stands.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    cluster::name_of,
    ground::{DRIVER, Ground, namespaces, repository},
    patience::eventually,
    pod::Pod,
    story::{Seen, Story},
};

/// What an application must say, besides going on: namespace, application, container, and the words
/// of one line of its log.
const TOLD: [(&str, &str, &str, &[&str]); 8] = [
    (MUTUAL_TLS, "client", "client", &["server: ok", "sa/client"]),
    (MUTUAL_TLS, "client", "client", &["stranger: impostor", "sa/stranger"]),
    (MUTUAL_TLS, "stranger", "client", &["server: forbidden", "sa/stranger"]),
    (MUTUAL_TLS, "server", "server", &["reloaded with", "sa/server"]),
    ("svid-example-subpath", "frozen", "app", &["subPath", "expired"]),
    ("svid-example-watcher", "watcher", "app", &["reloaded 1 "]),
    ("svid-example-workload-go", "app", "app", &["sa/app serial=", " renewals=1 "]),
    ("svid-example-workload-python", "app", "app", &["sa/app serial=", " renewals=1 "]),
];
const MUTUAL_TLS: &str = "svid-example-mutual-tls";

/// One file of deploy/examples.
struct Example {
    name: String,
    manifest: String,
}

/// What was verified.
#[derive(Default)]
struct Tally {
    pods: usize,
    certificates: usize,
}

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let examples = examples()?;
    for example in &examples {
        ground.apply_example(&example.manifest).with_context(|| example.name.clone())?;
    }
    story.step(&format!("{} examples are applied", examples.len()));
    let mut tally = Tally::default();
    for example in &examples {
        for namespace in namespaces(&example.manifest) {
            let pods = settled(ground, namespace).with_context(|| example.name.clone())?;
            for pod in &pods {
                verify(ground, pod, &mut tally).with_context(|| example.name.clone())?;
            }
            tally.pods += pods.len();
        }
        story.step(&format!("{}: runs, and its identities verify", example.name));
    }
    for (namespace, app, container, words) in TOLD {
        told(ground, namespace, app, container, words)?;
    }
    let calls = served_throughout(ground)?;
    story.step("the server and its client reloaded, and each side refuses a stranger");
    Ok(Seen::new(format!(
        "{0} of {0} run, {1} pods; {2} certificates verified with openssl; mutual TLS: {calls} \
         calls through a rotation, none dropped, the stranger refused by both sides",
        examples.len(),
        tally.pods,
        tally.certificates
    )))
}

/// Waits until an application's log has a line with all these words.
fn told(
    ground: &Ground,
    namespace: &str,
    app: &str,
    container: &str,
    words: &[&str],
) -> Result<String> {
    let what = format!("{app} in {namespace} to say {words:?}");
    eventually(&what, Duration::from_secs(90), || {
        let pods = ground.cluster.pods(namespace, "")?;
        let pod = pods.iter().find(|pod| pod.name.starts_with(app)).context("no such pod")?;
        let log = ground.cluster.logs(namespace, &pod.name, container)?;
        let mut lines = log.lines().rev();
        let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
        let last = log.lines().last().unwrap_or_default();
        line.map(ToOwned::to_owned).with_context(|| format!("its last line: {last}"))
    })
}

/// How many calls the client made while it and the server took new certificates; none failed.
fn served_throughout(ground: &Ground) -> Result<u64> {
    // Its count of reloads may still be on its way into the log.
    eventually("the client to reload", Duration::from_secs(90), || {
        let line = told(ground, MUTUAL_TLS, "client", "client", &["server: ok", "calls="])?;
        let figure = |name: &str| -> Result<u64> {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            Ok(word.with_context(|| format!("no {name} in {line}"))?.parse()?)
        };
        ensure!(figure("reloads=")? > 0, "{line}");
        ensure!(figure("dropped=")? == 0, "{line}");
        figure("calls=")
    })
}

fn examples() -> Result<Vec<Example>> {
    let directory = repository().join("deploy/examples");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    // The second needs what is not installed: the suite pod-certificate runs it.
    let apart = ["kustomization.yaml", "pod-certificate.yaml"];
    paths.retain(|path| apart.iter().all(|name| !path.ends_with(name)));
    paths.sort();
    ensure!(!paths.is_empty(), "there are no examples");
    let read = |path: &PathBuf| -> Result<Example> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Example { name, manifest: fs::read_to_string(path)? })
    };
    paths.iter().map(read).collect()
}

/// Waits until every pod of a namespace runs and is ready, or has done its work, and there are as
/// many as Deployments want.
fn settled(ground: &Ground, namespace: &str) -> Result<Vec<Value>> {
    eventually("it to run", Duration::from_mins(2), || {
        let pods = ground.cluster.list(namespace, "pods", "")?;
        ensure!(!pods.is_empty(), "there are no pods");
        for value in &pods {
            let pod = Pod::from_json(ground.cluster.clone(), value)?;
            let done = pod.is_ready() || pod.phase == "Succeeded";
            ensure!(done, "{} is {}", pod.name, pod.state());
            let restarted = pod.containers.iter().find(|container| container.restarts > 0);
            ensure!(restarted.is_none(), "{} was restarted", pod.name);
        }
        for deployment in ground.cluster.list(namespace, "deployments", "")? {
            let (wanted, ready) =
                (&deployment["spec"]["replicas"], &deployment["status"]["readyReplicas"]);
            ensure!(wanted == ready, "{} has {ready} of {wanted} pods", name_of(&deployment));
        }
        for job in ground.cluster.list(namespace, "jobs", "")? {
            ensure!(job["status"]["succeeded"] == 1, "job {} is not complete", name_of(&job));
        }
        Ok(pods)
    })
}

/// Every identity that a container of this pod has.
fn verify(ground: &Ground, value: &Value, tally: &mut Tally) -> Result<()> {
    let pod = Pod::from_json(ground.cluster.clone(), value)?;
    let volumes = value["spec"]["volumes"].as_array().into_iter().flatten();
    let ours: Vec<_> =
        volumes.filter(|v| v["csi"]["driver"] == DRIVER).map(|v| &v["name"]).collect();
    ensure!(!ours.is_empty(), "{} has no volume of ours", pod.name);
    for container in value["spec"]["containers"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        if pod.phase == "Succeeded" {
            let log = ground.cluster.logs(&pod.namespace, &pod.name, name)?;
            ensure!(log.contains(&pod.spiffe_id()), "the log of {} lacks its ID", pod.name);
            continue;
        }
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        for mount in mounts.filter(|m| ours.contains(&&m["name"]) && m["subPath"].is_null()) {
            let path = mount["mountPath"].as_str().unwrap_or_default();
            let set = pod.set_by_shell(name, path)?;
            set.check(&pod.spiffe_id()).with_context(|| format!("{}:{path}", pod.name))?;
            let id = set.openssl().with_context(|| format!("{}:{path}", pod.name))?;
            ensure!(id == pod.spiffe_id(), "openssl finds {id} in {}", pod.name);
            tally.certificates += 1;
        }
    }
    Ok(())
}
