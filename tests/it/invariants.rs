//! What must hold on a node at every moment (DESIGN.md §2), checked with the plugin running, dead
//! or started again.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use svid_csi::{id::SpiffeId, pki::X509Svid, sys::socket};

use crate::{
    local_ca::now,
    plugin::{DRIVER, Node, Pod, eventually},
    volume::Set,
};

/// The SVIDs of live volumes at one moment.
pub struct Snapshot(BTreeMap<String, X509Svid>);

/// Every live volume is mounted with a whole set, in which key, certificate and bundle match, and
/// every pod trusts what every other one shows (invariants 2, 3 and 6); nothing else of ours is
/// mounted but on the undecided, and no workload's key is elsewhere (invariant 1).
#[track_caller]
pub fn assert_sound(node: &Node, live: &[Pod], undecided: &[Pod]) -> Snapshot {
    let mut mounts = node.mounts();
    let mut sets = BTreeMap::new();
    for pod in live {
        let target = node.target(pod);
        let shown = target.display().to_string();
        let mounted = mounts.iter().filter(|mount| **mount == shown).count();
        assert_eq!(mounted, 1, "mounts on {shown}");
        mounts.retain(|mount| *mount != shown);
        let set = Set::read(&target).unwrap_or_else(|error| panic!("{shown}: {error}"));
        matches(&set, &pod.id()).unwrap_or_else(|error| panic!("{shown}: {error}"));
        sets.insert(pod.volume_id(), set);
    }
    for pod in undecided {
        let target = node.target(pod);
        let shown = target.display().to_string();
        mounts.retain(|mount| *mount != shown);
    }
    assert!(mounts.is_empty(), "stray mounts: {mounts:?}");

    let mut bundles: Vec<_> = sets.values().map(|set| &set.bundle).collect();
    bundles.dedup_by(|a, b| a.x509_authorities() == b.x509_authorities());
    for (volume, set) in &sets {
        for bundle in &bundles {
            let chain = set.svid.verify_chain(bundle, moment(&set.svid));
            chain.unwrap_or_else(|error| panic!("not everyone trusts {volume}: {error}"));
        }
    }
    assert_keys_stay(node);
    Snapshot(sets.into_iter().map(|(id, set)| (id, set.svid)).collect())
}

/// After a restart and kubelet's retries: nothing half-made is left anywhere.
#[track_caller]
pub fn assert_tidy(node: &Node, live: &[Pod]) -> Snapshot {
    let snapshot = assert_sound(node, live, &[]);
    for pod in live {
        let target = node.target(pod);
        let (mut sets, mut others) = (0, Vec::new());
        for name in names(&target) {
            match name.strip_prefix("..") {
                Some(number) if number.parse::<u64>().is_ok() => sets += 1,
                _ => others.push(name),
            }
        }
        assert!((1..=3).contains(&sets), "{sets} sets in {target:?}");
        let expected =
            ["..data", ".svid", "bundle.json", "ca.crt", "spiffe.sock", "tls.crt", "tls.key"];
        assert_eq!(others, expected, "{target:?}");
        let connected = socket::connect(&target.join("spiffe.sock"));
        assert!(connected.is_ok(), "nobody listens in {target:?}");
        assert_eq!(names(&target.join(".svid")), ["record.json"]);
        let record = node.record(pod).unwrap();
        assert_eq!(record["state"], "live", "{record}");
    }
    let live: Vec<PathBuf> = live.iter().map(|pod| node.target(pod)).collect();
    for pod in names(&node.kubelet().join("pods")) {
        let volume = node.kubelet().join(format!("pods/{pod}/volumes/kubernetes.io~csi/svid"));
        for name in names(&volume) {
            let path = volume.join(name);
            assert!(live.contains(&path), "{path:?} is left");
        }
    }
    assert_eq!(names(&node.ca_dir()), ["jwt.key", "tls.crt", "tls.key"]);
    let plugin = node.csi_socket();
    assert_eq!(names(plugin.parent().unwrap()), ["csi.sock", "record.key"]);
    // The name appears only after csi.sock answers.
    let registry = names(&node.kubelet().join("plugins_registry"));
    let expected = format!("{DRIVER}-reg.sock");
    assert!(registry.iter().all(|name| *name == expected), "{registry:?}");
    snapshot
}

/// Renewals go on with no call from anyone (invariant 4), and in time.
pub async fn assert_rotates(node: &Node, pods: &[Pod], others: &[Pod]) {
    let before = assert_sound(node, pods, others);
    eventually("every SVID is renewed", async || {
        let after = assert_sound(node, pods, others);
        let renewed = |(volume, svid): (&String, &X509Svid)| {
            svid.serial_hex() != before.0[volume].serial_hex() && svid.not_after() > now()
        };
        after.0.iter().all(renewed).then_some(())
    })
    .await;
}

/// Nothing of this pod is left.
#[track_caller]
pub fn assert_gone(node: &Node, pod: &Pod) {
    let target = node.target(pod);
    assert!(fs::symlink_metadata(&target).is_err(), "{target:?}");
    let shown = target.display().to_string();
    assert!(!node.mounts().contains(&shown), "{shown} is mounted");
}

// === impl Snapshot ===

impl Snapshot {
    /// Nothing was issued anew that was still fresh (invariant 4): renewal is due in the second
    /// half of an SVID's life.
    #[track_caller]
    pub fn assert_kept(&self, after: &Self) {
        for (volume, old) in &self.0 {
            let Some(new) = after.0.get(volume) else {
                continue;
            };
            let lifetime = old.not_after().duration_since(old.not_before()).unwrap();
            let fresh = now() < old.not_before() + lifetime / 2;
            let kept = old.serial_hex() == new.serial_hex();
            assert!(kept || !fresh, "{volume} was issued again while fresh");
        }
    }
}

/// Whether a set is whole, whenever it was made: expiry is another question.
pub fn matches(set: &Set, id: &str) -> Result<(), String> {
    let id: SpiffeId = id.parse().map_err(|error| format!("{error}"))?;
    let at = moment(&set.svid);
    set.svid.verify(&id, set.key.spki_der(), &set.bundle, at).map_err(|error| error.to_string())
}

fn moment(svid: &X509Svid) -> SystemTime {
    let last = svid.not_after() - Duration::from_secs(1);
    now().clamp(svid.not_before(), last)
}

/// A workload's key is on its tmpfs and nowhere else.
#[track_caller]
fn assert_keys_stay(node: &Node) {
    let root = node.path("");
    let signers = ["tls.key", "jwt.key"].map(|name| node.ca_dir().join(name));
    let device = fs::metadata(&root).unwrap().dev();
    let mut rest = vec![root];
    while let Some(path) = rest.pop() {
        // Names come and go while the plugin runs.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != device || signers.contains(&path) {
            continue;
        }
        if metadata.is_dir() {
            rest.extend(names(&path).into_iter().map(|name| path.join(name)));
        } else if metadata.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("PRIVATE KEY"), "a private key in {path:?}");
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let entries = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}
