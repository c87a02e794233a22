//! What the volumes' files held, seen by reading them all the while.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use svid_csi::pki::{X509Svid, certificates_from_pem};
use tokio::{task::JoinSet, time::sleep};

use crate::event::serial;

const EVERY: Duration = Duration::from_millis(20);

/// What one volume has held so far.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Serial numbers, and when each was first seen.
    pub serials: BTreeMap<String, Instant>,
    pub roots: usize,
    /// Ids of the keys that JWT-SVIDs may be signed with.
    pub kids: BTreeSet<String>,
}

/// Readers of volumes; they end with it.
pub struct Volumes {
    held: Arc<Mutex<BTreeMap<PathBuf, Held>>>,
    _readers: JoinSet<()>,
}

// === impl Volumes ===

impl Volumes {
    pub fn watch(targets: Vec<PathBuf>) -> Self {
        let held = Arc::new(Mutex::new(BTreeMap::new()));
        let mut readers = JoinSet::new();
        let shared = Arc::clone(&held);
        readers.spawn(async move {
            loop {
                for target in &targets {
                    let mut held = shared.lock().unwrap();
                    read(target, held.entry(target.clone()).or_default());
                }
                sleep(EVERY).await;
            }
        });
        Self { held, _readers: readers }
    }

    pub fn held(&self, target: &Path) -> Held {
        self.held.lock().unwrap().get(target).cloned().unwrap_or_default()
    }
}

/// A set that is swapped while it is read is read the next time.
fn read(target: &Path, held: &mut Held) {
    let Ok(data) = fs::read_link(target.join("..data")) else { return };
    let text = |name: &str| fs::read_to_string(target.join(&data).join(name)).unwrap_or_default();
    let svid =
        certificates_from_pem(&text("tls.crt")).ok().and_then(|c| X509Svid::from_chain(c).ok());
    if let Some(svid) = svid {
        held.serials.entry(serial(svid.serial_hex())).or_insert_with(Instant::now);
    }
    held.roots = certificates_from_pem(&text("ca.crt")).map_or(held.roots, |roots| roots.len());
    let bundle: serde_json::Value = serde_json::from_str(&text("bundle.json")).unwrap_or_default();
    for key in bundle["keys"].as_array().into_iter().flatten() {
        if key["use"] == "jwt-svid" {
            held.kids.extend(key["kid"].as_str().map(ToOwned::to_owned));
        }
    }
}
