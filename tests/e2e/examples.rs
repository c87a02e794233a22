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
    strangers: usize,
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
    Ok(Seen::new(format!(
        "{0} of {0} run, {1} pods; {2} certificates verified with openssl; {3} strangers refused",
        examples.len(),
        tally.pods,
        tally.certificates,
        tally.strangers
    )))
}

fn examples() -> Result<Vec<Example>> {
    let directory = repository().join("deploy/examples");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.retain(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"));
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
