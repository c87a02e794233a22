//! Who may read the files, and that nobody else sees or changes them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use svid_csi::sys::MountEntry;

use crate::{
    ground::{DRIVER, Ground},
    pod::Pod,
    story::{Seen, Story},
    workload::{CONTAINER, MOUNT, Workload},
};

const NAMESPACE: &str = "e2e-ownership";

/// A kind of pod and what it must find.
struct Case {
    name: &'static str,
    security: Value,
    attribute: Option<(&'static str, &'static str)>,
    uid: u32,
    /// Of the volume's directory and the set's.
    directory: &'static str,
    /// Of every file.
    files: &'static str,
    /// Of the socket.
    socket: &'static str,
}

/// DESIGN.md §4: with an fsGroup 0750 root:fsGroup, 0440 and 0660, without 0755, 0444 and 0666.
fn cases() -> [Case; 7] {
    let case = |name, security, uid, [directory, files, socket]: [_; 3]| Case {
        name,
        security,
        attribute: None,
        uid,
        directory,
        files,
        socket,
    };
    let open = ["0 0 755", "0 0 444", "0 0 666"];
    let user = json!({"runAsUser": 1000, "runAsGroup": 1000});
    let group = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000});
    // As OpenShift's restricted SCCs choose them.
    let random = json!({"runAsUser": 1_000_690_000, "runAsGroup": 0, "fsGroup": 1_000_690_000_u32});
    [
        case("root", json!({"runAsUser": 0}), 0, open),
        case(
            "root-fsgroup",
            json!({"runAsUser": 0, "fsGroup": 3000}),
            0,
            ["0 3000 750", "0 3000 440", "0 3000 660"],
        ),
        case("user", user.clone(), 1000, open),
        case("user-fsgroup", group, 1000, ["0 2000 750", "0 2000 440", "0 2000 660"]),
        case(
            "random",
            random,
            1_000_690_000,
            ["0 1000690000 750", "0 1000690000 440", "0 1000690000 660"],
        ),
        case("random-alone", json!({"runAsUser": 1_000_700_001}), 1_000_700_001, open),
        Case {
            attribute: Some(("uid", "1000")),
            ..case("user-attribute", user, 1000, ["1000 0 700", "1000 0 400", "1000 0 600"])
        },
    ]
}

const CONNECT: &str =
    r#"python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/svid/spiffe.sock")'"#;

/// Every way to change something; prints the ones that succeed.
const ATTACKS: &str = r#"
    cd /svid || exit
    try() { if "$@" 2>/dev/null; then echo "$*"; fi; }
    try touch new
    try mkdir new.d
    try rm -f tls.key
    try rm -f spiffe.sock
    try mv spiffe.sock other.sock
    try chmod 666 spiffe.sock
    try python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("own.sock")'
    try rm -rf ..data/tls.key
    try mv tls.crt tls.crt.old
    try ln -sfn /tmp ..data
    try chmod 777 .
    try chmod 666 tls.key
    try chown 12345 tls.key
    try sh -c 'echo x >> tls.crt'
    try sh -c 'echo x > ..data/tls.key'
    try truncate -s 0 ca.crt
    try mount -o remount,rw /svid
    try mount -t tmpfs tmpfs /svid
    try umount /svid
    try mount --bind /tmp /svid
    cat tls.key tls.crt ca.crt bundle.json >/dev/null && echo read
"#;

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    ground.namespace(NAMESPACE)?;
    let nodes = ground.cluster.nodes()?;
    let cases = cases();
    let mut objects = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let pod = ground.workload(NAMESPACE, case.name).on(&nodes[n % nodes.len()]);
        let mut pod = pod.security(case.security.clone());
        if let Some((key, value)) = case.attribute {
            pod = pod.with(key, value);
        }
        objects.push(with_bystander(pod).object());
    }
    ground.cluster.apply(&objects)?;
    let pods = ground.cluster.ready_pods(NAMESPACE, cases.len(), Duration::from_mins(1))?;
    story.step(&format!("{} pods run on {} nodes", pods.len(), nodes.len()));

    for case in &cases {
        let pod = named(&pods, case.name)?;
        owners_and_modes(pod, case).with_context(|| case.name)?;
        unchangeable(pod, case).with_context(|| case.name)?;
    }
    story.step("owners and modes are right; no container can change anything");

    isolated(&pods)?;
    if ground.cluster.is_ours() {
        for node in &nodes {
            ground.cluster.node(node).has_mounts_of(&pods, 1)?;
        }
    }
    story.step("each container sees its own volume and no other");
    Ok(Seen::new(format!(
        "{} kinds of user see the right owners and modes, root in a container can change nothing, \
         and no volume is visible in another pod or container",
        cases.len()
    )))
}

/// A second container without the volume.
fn with_bystander(mut pod: Workload) -> Workload {
    let mut bystander = pod.spec()["containers"][0].clone();
    bystander["name"] = "bystander".into();
    bystander["volumeMounts"] = json!([]);
    if let Some(containers) = pod.spec()["containers"].as_array_mut() {
        containers.push(bystander);
    }
    pod
}

fn named<'p>(pods: &'p [Pod], name: &str) -> Result<&'p Pod> {
    pods.iter().find(|pod| pod.name == name).with_context(|| format!("no pod {name}"))
}

fn owners_and_modes(pod: &Pod, case: &Case) -> Result<()> {
    let user = pod.shell(CONTAINER, "id -u")?;
    ensure!(user.trim() == case.uid.to_string(), "the container runs as {}", user.trim());
    let found = pod.shell(CONTAINER, "cd /svid && stat -L -c '%n %u %g %a' . ..data *")?;
    let mut names = BTreeSet::new();
    for line in found.lines() {
        let (name, owner) = line.split_once(' ').context("stat")?;
        let wanted = match name {
            "." | "..data" => case.directory,
            "spiffe.sock" => case.socket,
            _ => case.files,
        };
        ensure!(owner == wanted, "{name} is {owner}, not {wanted}");
        names.insert(name);
    }
    let wanted = BTreeSet::from([
        ".",
        "..data",
        "bundle.json",
        "ca.crt",
        "spiffe.sock",
        "tls.crt",
        "tls.key",
    ]);
    ensure!(names == wanted, "the volume has {names:?}");
    // Connecting takes write permission, which a read-only mount does not take away.
    pod.shell(CONTAINER, CONNECT).context("connecting to the socket").map(drop)
}

fn unchangeable(pod: &Pod, case: &Case) -> Result<()> {
    let before = pod.set(CONTAINER, MOUNT)?;
    before.check(&pod.spiffe_id())?;
    let done = pod.shell(CONTAINER, ATTACKS)?;
    ensure!(done.trim() == "read", "the container could: {done}");
    let after = pod.set(CONTAINER, MOUNT)?;
    ensure!(after.files == before.files, "the files have changed");
    let private = pod.shell(CONTAINER, "ls -A /svid/.svid && cat /svid/.svid/*; true")?;
    let is_root = case.uid == 0;
    ensure!(is_root != private.is_empty(), "user {} reads in .svid: {private:?}", case.uid);
    let key = before.files.get("tls.key").and_then(|key| key.lines().nth(1));
    let key = key.context("tls.key has no second line")?;
    ensure!(!private.contains(key), ".svid holds the key");
    Ok(())
}

/// Every container has one mount of ours, each pod's of a device of its own, a bystander none; and
/// no two pods have a key in common.
fn isolated(pods: &[Pod]) -> Result<()> {
    let mut devices = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for pod in pods {
        let mounted = |container: &str| -> Result<Vec<_>> {
            let mountinfo = pod.shell(container, "cat /proc/self/mountinfo")?;
            let mounts = MountEntry::parse_all(mountinfo.as_bytes());
            Ok(mounts.into_iter().filter(|m| m.source == DRIVER).collect())
        };
        let own = mounted(CONTAINER)?;
        let at: Vec<_> = own.iter().map(|mount| mount.mount_point.display().to_string()).collect();
        ensure!(at == [MOUNT], "{} has our mounts at {at:?}", pod.name);
        ensure!(own[0].options.split(',').any(|o| o == "ro"), "{} has it writable", pod.name);
        let foreign = mounted("bystander")?;
        ensure!(foreign.is_empty(), "a container without the volume sees it in {}", pod.name);
        let device = pod.shell(CONTAINER, "stat -c %d /svid")?;
        ensure!(
            devices.insert((pod.node.clone(), device)),
            "{} shares its file system with another pod",
            pod.name
        );
        let set = pod.set(CONTAINER, MOUNT)?;
        ensure!(keys.insert(set.key.spki_der().to_vec()), "{} has another's key", pod.name);
    }
    Ok(())
}
