//! The temporary node: its directory, its mounts, and that nothing of them stays.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{DRIVER, plugin::Plugin};
use crate::sys::{LinuxMounter, MountEntry, Mounter};

/// How much of the plugin's log is shown after a failure, in lines.
const TAIL: usize = 12;

/// A node without a cluster. Everything of it goes when this is dropped; [`Stage::clear`] tells
/// whether it did.
pub(super) struct Stage {
    root: PathBuf,
    directory: Option<TempDir>,
    /// While it runs.
    pub(super) plugin: Option<Plugin>,
}

// === impl Stage ===

impl Stage {
    /// Makes the directory and what kubelet has in its own.
    pub(super) fn build() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("svid-csi-demo-")
            .tempdir()
            .context("make a temporary directory; TMPDIR chooses where")?;
        let root = directory.path().canonicalize()?;
        let stage = Self { root, directory: Some(directory), plugin: None };
        fs::create_dir_all(stage.kubelet().join("plugins_registry"))?;
        fs::create_dir(stage.kubelet().join("pods"))?;
        Ok(stage)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// Starts the plugin and waits until it answers.
    pub(super) async fn start_plugin(&mut self) -> Result<&Plugin> {
        let plugin = Plugin::start(&self.root).await?;
        Ok(self.plugin.insert(plugin))
    }

    pub(super) fn plugin(&self) -> Result<&Plugin> {
        self.plugin.as_ref().context("the node plugin does not run")
    }

    /// An error if the plugin should run and doesn't.
    pub(super) fn plugin_is_well(&mut self) -> Result<()> {
        if let Some(plugin) = &mut self.plugin
            && let Some(status) = plugin.process.ended()?
        {
            self.plugin = None;
            bail!("the node plugin ended by itself with {status}");
        }
        Ok(())
    }

    /// The driver's mounts in the node's directory.
    pub(super) fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        let mut mounts = LinuxMounter.mounts()?;
        mounts
            .retain(|mount| mount.is_tmpfs_of(DRIVER) && mount.mount_point.starts_with(&self.root));
        Ok(mounts)
    }

    /// The last lines of what the plugin logged, in all its lives.
    pub(super) fn log_tail(&self) -> Vec<String> {
        let log = fs::read(self.root.join("node.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL);
        lines.iter().skip(from).map(ToString::to_string).collect()
    }

    /// Removes all of it, however far things had come. Does nothing the second time.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.plugin = None;
        let Some(directory) = self.directory.take() else {
            return Ok(());
        };
        self.unmount_all()?;
        directory.close().with_context(|| format!("remove {}", self.root.display()))
    }

    fn unmount_all(&self) -> Result<()> {
        for mount in self.mounts()?.iter().rev() {
            let point = &mount.mount_point;
            let (Some(parent), Some(name)) = (point.parent(), point.file_name()) else {
                continue;
            };
            LinuxMounter
                .unmount(File::open(parent)?.as_fd(), name)
                .with_context(|| format!("unmount {}", point.display()))?;
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Only after a panic is there anything left to do.
        let _ = self.clear();
    }
}
