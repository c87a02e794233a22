//! A node of our own cluster: what is mounted there, what lies there.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use svid_csi::sys::MountEntry;

use crate::{cluster::Cluster, ground::DRIVER, pod::Pod};

pub struct Node {
    cluster: Cluster,
    pub name: String,
}

// === impl Node ===

impl Node {
    pub fn new(cluster: Cluster, name: &str) -> Self {
        Self { cluster, name: name.to_owned() }
    }

    /// A command in the node's namespaces: what it printed; it must succeed.
    pub fn run<'a>(&'a self, command: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.cluster.node_exec(&self.name, command).text()
    }

    /// Where the driver's volumes are mounted, one entry a mount: stacked ones show twice. Copies
    /// of mounts inside containers are not among them.
    pub fn volumes(&self) -> Result<Vec<PathBuf>> {
        let mountinfo = self.run(["cat", "/proc/self/mountinfo"])?;
        let mounts = MountEntry::parse_all(mountinfo.as_bytes());
        let mut ours: Vec<_> = mounts
            .into_iter()
            .filter(|mount| mount.is_tmpfs_of(DRIVER))
            .map(|mount| mount.mount_point)
            .filter(|path| path.starts_with("/var/lib/kubelet/pods"))
            .collect();
        ours.sort();
        Ok(ours)
    }

    /// The same, each mounted once.
    pub fn volumes_once(&self) -> Result<Vec<PathBuf>> {
        let volumes = self.volumes()?;
        for pair in volumes.windows(2) {
            ensure!(pair[0] != pair[1], "mounted twice on {}: {}", self.name, pair[0].display());
        }
        Ok(volumes)
    }

    /// Each of these pods of the node has its volumes mounted once, `each` of them, and nothing of
    /// ours is mounted for anyone else: how many.
    pub fn has_mounts_of(&self, pods: &[Pod], each: usize) -> Result<usize> {
        let volumes = self.volumes_once()?;
        let pods: Vec<_> = pods.iter().filter(|pod| pod.node == self.name).collect();
        for pod in &pods {
            let own = volumes.iter().filter(|path| path.starts_with(pod.directory())).count();
            ensure!(own == each, "{} has {own} mounts on {}, not {each}", pod.name, self.name);
        }
        let wanted = pods.len() * each;
        let stray = volumes.iter().find(|v| !pods.iter().any(|p| v.starts_with(p.directory())));
        let stray = stray.map(|path| path.display().to_string()).unwrap_or_default();
        ensure!(volumes.len() == wanted, "not of any pod here: {stray} on {}", self.name);
        Ok(wanted)
    }

    /// The lines of `find PATH ARGS…` on the node; none if the path is not there.
    pub fn find<'a>(
        &'a self,
        path: &'a str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<String>> {
        let command = ["find", path, "-xdev"].into_iter().chain(args);
        let done = self.cluster.node_exec(&self.name, command).done()?;
        Ok(done.stdout.lines().map(ToOwned::to_owned).collect())
    }

    /// Whether the path is there.
    pub fn has(&self, path: &Path) -> Result<bool> {
        let shown = path.display().to_string();
        Ok(self.cluster.node_exec(&self.name, ["test", "-e", &shown]).done()?.status.success())
    }
}
