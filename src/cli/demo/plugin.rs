//! The node plugin as a child process, and kubelet's part of the conversation with it.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use svid_csi_proto::{
    csi::v1::{
        NodeGetVolumeStatsRequest, ProbeRequest, identity_client::IdentityClient,
        node_client::NodeClient,
    },
    pluginregistration::{
        InfoRequest, RegistrationStatus, registration_client::RegistrationClient,
    },
};
use tokio::time::{Instant, sleep};
use tonic::{Status, transport::Channel};

use super::{DRIVER, TRUST_DOMAIN, pod::Pod, process::Process};
use crate::cli::channel;

/// How long the plugin may take to start, to answer and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(5);

/// A running node plugin.
pub(super) struct Plugin {
    pub(super) process: Process,
    /// From its start to its first answer.
    pub(super) took: Duration,
    kubelet: PathBuf,
    channel: Channel,
}

// === impl Plugin ===

impl Plugin {
    /// Starts it and waits until it says that it is ready.
    pub(super) async fn start(root: &Path) -> Result<Self> {
        let kubelet = root.join("kubelet");
        let began = Instant::now();
        let mut process = Process::start("svid-csi node", &mut command(root)?)?;
        loop {
            if let Some(status) = process.ended()? {
                bail!("the node plugin ended by itself with {status}");
            }
            if let Ok(channel) = channel::unix(csi_socket(&kubelet), PATIENCE).await {
                let mut identity = IdentityClient::new(channel.clone());
                if identity.probe(ProbeRequest {}).await.is_ok() {
                    return Ok(Self { process, took: began.elapsed(), kubelet, channel });
                }
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "the node plugin does not answer on csi.sock after {} s",
                PATIENCE.as_secs()
            );
            sleep(TICK).await;
        }
    }

    /// Registers it as kubelet's plugin watcher does: where it serves CSI.
    pub(super) async fn register(&self) -> Result<PathBuf> {
        let socket = self.kubelet.join(format!("plugins_registry/{DRIVER}-reg.sock"));
        let mut client = RegistrationClient::new(channel::unix(socket, PATIENCE).await?);
        let info = client.get_info(InfoRequest {}).await.map_err(told)?;
        let info = info.into_inner();
        ensure!(
            info.r#type == "CSIPlugin" && info.name == DRIVER,
            "it calls itself {} {}",
            info.r#type,
            info.name
        );
        let status = RegistrationStatus { plugin_registered: true, error: String::new() };
        client.notify_registration_status(status).await.map_err(told)?;
        Ok(info.endpoint.into())
    }

    /// What kubelet does when a pod starts. How long the call took.
    pub(super) async fn publish(&self, pod: &Pod) -> Result<Duration> {
        if let Some(parent) = pod.target(&self.kubelet).parent() {
            fs::create_dir_all(parent)?;
        }
        let began = Instant::now();
        self.node()
            .node_publish_volume(pod.publish(&self.kubelet))
            .await
            .map_err(told)
            .with_context(|| format!("NodePublishVolume for {}", pod.name))?;
        Ok(began.elapsed())
    }

    /// What kubelet does when a pod is gone.
    pub(super) async fn unpublish(&self, pod: &Pod) -> Result<()> {
        self.node()
            .node_unpublish_volume(pod.unpublish(&self.kubelet))
            .await
            .map_err(told)
            .with_context(|| format!("NodeUnpublishVolume for {}", pod.name))?;
        let target = pod.target(&self.kubelet);
        ensure!(!target.exists(), "{} is still there", target.display());
        fs::remove_dir_all(pod.directory(&self.kubelet))?;
        Ok(())
    }

    /// What kubelet asks about a volume from time to time. An error if it is not well.
    pub(super) async fn check_condition(&self, pod: &Pod) -> Result<()> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: pod.volume_id(),
            volume_path: pod.target(&self.kubelet).display().to_string(),
            ..NodeGetVolumeStatsRequest::default()
        };
        let stats = self.node().node_get_volume_stats(request).await;
        let stats = stats.map_err(told)?.into_inner();
        let condition = stats.volume_condition.context("no volume condition")?;
        ensure!(!condition.abnormal, "{}: {}", pod.name, condition.message);
        Ok(())
    }

    /// SIGTERM.
    pub(super) async fn stop(mut self) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.process.end(PATIENCE).await
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }
}

fn command(root: &Path) -> Result<Command> {
    let log = File::options().create(true).append(true).open(root.join("node.log"))?;
    let mut command = Command::new(env::current_exe()?);
    command
        // A setting in the environment of whoever runs the demo is not meant for it.
        .env_clear()
        .args(["node", "--node-name", "demo", "--driver-name", DRIVER])
        .args(["--trust-domain", TRUST_DOMAIN, "--signer", "local"])
        .args(["--ca-create", "--http-listen", "127.0.0.1:0"])
        .arg("--ca-dir")
        .arg(root.join("ca"))
        .arg("--kubelet-dir")
        .arg(root.join("kubelet"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(command)
}

pub(super) fn csi_socket(kubelet: &Path) -> PathBuf {
    kubelet.join("plugins").join(DRIVER).join("csi.sock")
}

fn told(status: Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}
