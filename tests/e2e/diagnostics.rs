//! What a person wants to look at after a failure, before the cluster goes.

use std::{fs, path::Path, time::Duration};

use crate::{
    command::Run,
    control::{BUNDLE, Control},
    ground::{Ground, NAMESPACE},
};

/// Writes it all below `directory`, as far as it can be had.
pub fn collect(ground: &Ground, directory: &Path) {
    let cluster = &ground.cluster;
    let kubectl = |args: &str| cluster.kubectl_run(args.split(' '));
    let mut wanted = vec![
        ("pods.txt".to_owned(), kubectl("get pods -A -o wide")),
        ("pods.yaml".to_owned(), kubectl("get pods -A -o yaml")),
        ("events.txt".to_owned(), kubectl("get events -A --sort-by=.metadata.creationTimestamp")),
        ("objects.txt".to_owned(), kubectl("get nodes,csinodes,csidrivers,daemonsets -A -o wide")),
    ];
    if ground.signer.is_decided() {
        let requests = kubectl("get certificatesigningrequests -o yaml");
        wanted.push(("requests.yaml".to_owned(), requests));
        wanted.push(("policies.yaml".to_owned(), kubectl("get svidpolicies -o yaml")));
        let map = kubectl(&format!("-n {NAMESPACE} get configmap {BUNDLE} -o yaml"));
        wanted.push(("bundle.yaml".to_owned(), map));
    }
    let drivers = ground.driver_pods().unwrap_or_default();
    let drivers = drivers.into_iter().map(|pod| (format!("driver-{}", pod.node), pod));
    let controllers = Control::of(ground).pods().unwrap_or_default();
    let controllers = controllers.into_iter().map(|pod| (pod.name.clone(), pod));
    for (name, pod) in drivers.chain(controllers) {
        let logs = format!("-n {NAMESPACE} logs {} --tail=3000", pod.name);
        wanted.push((format!("{name}.log"), kubectl(&logs)));
        if pod.containers.iter().any(|container| container.restarts > 0) {
            let previous = kubectl(&format!("{logs} --previous"));
            wanted.push((format!("{name}-previous.log"), previous));
        }
    }
    if cluster.is_ours() {
        for node in cluster.nodes().unwrap_or_default() {
            let mounts = cluster.node_exec(&node, ["cat", "/proc/self/mountinfo"]);
            wanted.push((format!("mounts-{node}.txt"), mounts));
            for component in ["kubelet", "containerd"] {
                let logs = cluster.script(["logs", component, node.as_str()]);
                wanted.push((format!("{component}-{node}.log"), logs));
            }
        }
    }
    for (name, run) in wanted {
        write(&directory.join(name), run);
    }
}

fn write(path: &Path, run: Run) {
    let text = match run.limit(Duration::from_secs(20)).stubborn().done() {
        Ok(done) => done.stdout + &done.stderr,
        Err(error) => format!("{error:#}"),
    };
    // Whoever looks here has a failure already.
    let _ = fs::write(path, text);
}
