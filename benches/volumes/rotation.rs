//! How fast sets are swapped when all are due, told by the times of the swaps themselves.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use svid_csi::pki::{Authority, KeyAlgorithm};
use tokio::time::{Instant, sleep_until};

use crate::{
    load::publish_all,
    plugin::{Node, Pod, TRUST_DOMAIN},
};

const DAY: Duration = Duration::from_secs(86_400);

/// The links that a swap replaces, and where they lead now.
struct Swaps(Vec<(PathBuf, PathBuf)>);

/// Puts a new CA into the CA directory and waits until it is in every volume's bundle: volumes a
/// second.
pub async fn replace_ca(node: &Node, pods: &[Pod]) -> f64 {
    let swaps = Swaps::before(node, pods);
    let domain = TRUST_DOMAIN.parse().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the plugin looks at the same clock")]
    let now = SystemTime::now();
    let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, 365 * DAY, now).unwrap();
    let dir = node.ca_dir();
    for (name, pem) in [("tls.key", ca.key_pem().to_string()), ("tls.crt", ca.certificate_pem())] {
        let new = dir.join(".new");
        fs::write(&new, pem).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, dir.join(name)).unwrap();
    }
    swaps.rate().await
}

/// Publishes volumes that live for ten seconds and holds the plugin still until all are due:
/// renewals a second.
pub async fn renew_all(node: &Node, pods: &[Pod]) -> f64 {
    let started = Instant::now();
    publish_all(node, pods).await;
    let swaps = Swaps::before(node, pods);
    let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    sleep_until(started + Duration::from_secs(8)).await;
    kill(pid, Signal::SIGCONT).unwrap();
    swaps.rate().await
}

// === impl Swaps ===

impl Swaps {
    fn before(node: &Node, pods: &[Pod]) -> Self {
        let link = |pod| {
            let link = node.target(pod).join("..data");
            let leads = fs::read_link(&link).unwrap();
            (link, leads)
        };
        Self(pods.iter().map(link).collect())
    }

    /// Waits until every link was replaced; how many a second were, from the first to the last.
    async fn rate(&self) -> f64 {
        let mut next = Instant::now();
        let swapped = |(link, before): &(PathBuf, PathBuf)| fs::read_link(link).unwrap() != *before;
        while !self.0.iter().all(swapped) {
            next += Duration::from_millis(100);
            sleep_until(next).await;
        }
        let at = |(link, _): &(PathBuf, PathBuf)| {
            let metadata = fs::symlink_metadata(link).unwrap();
            metadata.ctime() as f64 + metadata.ctime_nsec() as f64 / 1e9
        };
        let (mut first, mut last) = (f64::MAX, f64::MIN);
        for time in self.0.iter().map(at) {
            (first, last) = (first.min(time), last.max(time));
        }
        // The kernel's clock for this has ticks of a few milliseconds.
        (self.0.len() - 1) as f64 / (last - first).max(0.004)
    }
}
