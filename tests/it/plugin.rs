//! The real node plugin, run as kubelet would: a child process, real mounts in a mount namespace
//! of the test's own, gRPC over csi.sock.

use std::{
    collections::HashMap,
    fs,
    future::Future,
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use svid_csi::sys::{in_private_mount_namespace, socket};
use svid_csi_proto::csi::v1::{
    NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability,
    identity_client::IdentityClient,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    process::{Child, Command},
    time::{Instant, sleep},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

pub const DRIVER: &str = "csi.svid.dev";
pub const TRUST_DOMAIN: &str = "example.org";
const START: Duration = Duration::from_secs(30);

/// A node: kubelet's directory, a CA and, while it runs, the plugin.
pub struct Node {
    root: TempDir,
    extra: Vec<String>,
    ca_create: bool,
    child: Option<Child>,
}

/// A pod with one volume.
#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub service_account: String,
    pub volume: String,
    pub attributes: Vec<(String, String)>,
    pub fs_group: Option<String>,
}

/// Runs an async test in a mount namespace that ends with it.
pub fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    in_private_mount_namespace(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(test());
    });
}

/// Detaches every mount below, without which a temporary directory can't be removed.
pub fn unmount_below(root: &Path) {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = text.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(root)) {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Waits until `check` gives something. The deadline only ends a test that has failed.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + START;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

// === impl Node ===

impl Node {
    /// A node whose plugin gets these arguments besides its own, not yet running.
    pub fn new(extra: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kubelet/plugins_registry")).unwrap();
        let extra = extra.iter().map(ToString::to_string).collect();
        Self { root, extra, ca_create: true, child: None }
    }

    /// A node whose plugin makes no CA, not yet running.
    pub fn without_ca() -> Self {
        let mut node = Self::new(&[]);
        node.ca_create = false;
        node
    }

    /// A node whose plugin runs.
    pub async fn started(extra: &[&str]) -> Self {
        let mut node = Self::new(extra);
        node.start().await;
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn kubelet(&self) -> PathBuf {
        self.path("kubelet")
    }

    pub fn ca_dir(&self) -> PathBuf {
        self.path("ca")
    }

    pub fn csi_socket(&self) -> PathBuf {
        self.kubelet().join("plugins").join(DRIVER).join("csi.sock")
    }

    pub fn registration_socket(&self) -> PathBuf {
        self.kubelet().join("plugins_registry").join(format!("{DRIVER}-reg.sock"))
    }

    /// What the plugin logged, in all its lives.
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(self.path("log")) {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    pub fn set_extra(&mut self, extra: &[&str]) {
        self.extra = extra.iter().map(ToString::to_string).collect();
    }

    /// Gives the next start another argument in the place of one.
    pub fn replace_extra(&mut self, before: &str, after: &str) {
        let arg = self.extra.iter_mut().find(|arg| *arg == before).expect("it has the argument");
        after.clone_into(arg);
    }

    fn log_file(&self) -> fs::File {
        let mut options = fs::File::options();
        let options = options.create(true).append(true);
        options.open(self.path("log")).unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_svid-csi"));
        command
            .args(["node", "--node-name", "node-1", "--trust-domain", TRUST_DOMAIN])
            .args(self.ca_create.then_some("--ca-create"))
            .args(["--http-listen", "127.0.0.1:0", "--log-format", "json"])
            .arg("--ca-dir")
            .arg(self.ca_dir())
            .arg("--kubelet-dir")
            .arg(self.kubelet())
            .args(&self.extra)
            .env("KUBECONFIG", self.path("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log_file())
            .kill_on_drop(true);
        command
    }

    /// Starts the plugin and waits until it answers.
    pub async fn start(&mut self) {
        self.launch();
        eventually("csi.sock answers", async || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the plugin ended with {status}:\n{}", self.log());
            }
            self.answers().await.then_some(())
        })
        .await;
    }

    /// Whether csi.sock is served now.
    pub async fn answers(&self) -> bool {
        let Ok(channel) = self.channel().await else {
            return false;
        };
        let probe = svid_csi_proto::csi::v1::ProbeRequest {};
        IdentityClient::new(channel).probe(probe).await.is_ok()
    }

    /// Starts the plugin and waits for nothing.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.child = Some(self.command().spawn().unwrap());
    }

    /// Starts a process that is the plugin from [`Node::go`] on: until then it waits.
    pub fn launch_waiting(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let plugin = self.command();
        let mut command = Command::new("sh");
        command
            .args(["-c", "read -r line && exec \"$0\" \"$@\" </dev/null"])
            .arg(plugin.as_std().get_program())
            .args(plugin.as_std().get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(self.log_file())
            .kill_on_drop(true);
        self.child = Some(command.spawn().unwrap());
    }

    pub async fn go(&mut self) {
        let child = self.child.as_mut().expect("it waits");
        let mut stdin = child.stdin.take().expect("it waits");
        stdin.write_all(b"\n").await.unwrap();
    }

    /// Runs the plugin until it ends by itself: its exit status and its log.
    pub async fn run_to_end(&mut self) -> (Option<i32>, String) {
        let status = self.command().status().await.unwrap();
        (status.code(), self.log())
    }

    /// SIGKILL, and nothing of the process is left when this returns.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }

    /// Waits for its end, whatever brought it.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        self.child.take().expect("it runs").wait().await.unwrap()
    }

    /// SIGTERM; its exit status.
    pub async fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).unwrap();
        child.wait().await.unwrap().code()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("it runs")
    }

    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        connect(&self.csi_socket()).await
    }

    pub async fn csi(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel().await.unwrap())
    }

    /// Makes what kubelet makes before it publishes, and publishes.
    pub async fn publish(&self, pod: &Pod) -> Result<(), Status> {
        self.prepare(pod);
        self.publish_raw(self.request(pod)).await
    }

    pub fn prepare(&self, pod: &Pod) {
        fs::create_dir_all(self.target(pod).parent().unwrap()).unwrap();
    }

    pub async fn publish_raw(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.csi().await.node_publish_volume(request).await.map(|_| ())
    }

    pub async fn unpublish(&self, pod: &Pod) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: pod.volume_id(),
            target_path: self.target(pod).display().to_string(),
        };
        self.csi().await.node_unpublish_volume(request).await.map(|_| ())
    }

    pub fn target(&self, pod: &Pod) -> PathBuf {
        let volumes = format!("pods/{}/volumes/kubernetes.io~csi/{}/mount", pod.uid, pod.volume);
        self.kubelet().join(volumes)
    }

    /// What kubelet would send.
    pub fn request(&self, pod: &Pod) -> NodePublishVolumeRequest {
        let mount = MountVolume {
            volume_mount_group: pod.fs_group.clone().unwrap_or_default(),
            ..MountVolume::default()
        };
        NodePublishVolumeRequest {
            volume_id: pod.volume_id(),
            target_path: self.target(pod).display().to_string(),
            readonly: true,
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(mount)),
                access_mode: Some(AccessMode { mode: access_mode::Mode::SingleNodeWriter.into() }),
            }),
            volume_context: pod.context(),
            ..NodePublishVolumeRequest::default()
        }
    }

    /// The tmpfs mounts of the driver below kubelet's directory.
    pub fn mounts(&self) -> Vec<String> {
        let kubelet = self.kubelet().display().to_string();
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = text.lines().filter(|line| line.contains(&format!(" - tmpfs {DRIVER} ")));
        let points = points.filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| point.starts_with(&kubelet)).map(ToOwned::to_owned).collect()
    }

    pub fn record(&self, pod: &Pod) -> Option<serde_json::Value> {
        let bytes = fs::read(self.target(pod).join(".svid/record.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The child shares the mount namespace and would keep it; kill_on_drop sends SIGKILL.
        self.child = None;
        if std::thread::panicking() {
            println!("--- log of the plugin ---\n{}", self.log());
        }
        unmount_below(self.root.path());
    }
}

// === impl Pod ===

impl Pod {
    /// The n-th pod of a namespace and ServiceAccount.
    pub fn new(n: usize) -> Self {
        Self {
            uid: format!("00000000-0000-4000-8000-{n:012}"),
            namespace: "shop".to_owned(),
            name: format!("cart-{n}"),
            service_account: "cart".to_owned(),
            volume: "svid".to_owned(),
            attributes: Vec::new(),
            fs_group: None,
        }
    }

    /// With an attribute under the driver's prefix.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.attributes.push((format!("csi.svid.dev/{key}"), value.to_owned()));
        self
    }

    pub fn id(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}", self.namespace, self.service_account)
    }

    pub fn volume_id(&self) -> String {
        format!("csi-{}-{}", self.uid, self.volume)
    }

    pub fn context(&self) -> HashMap<String, String> {
        let kubelet = [
            ("csi.storage.k8s.io/pod.name", self.name.as_str()),
            ("csi.storage.k8s.io/pod.namespace", self.namespace.as_str()),
            ("csi.storage.k8s.io/pod.uid", self.uid.as_str()),
            ("csi.storage.k8s.io/serviceAccount.name", self.service_account.as_str()),
            ("csi.storage.k8s.io/ephemeral", "true"),
        ];
        let kubelet = kubelet.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.attributes.iter().cloned().chain(kubelet).collect()
    }
}

pub async fn connect(path: &Path) -> Result<Channel, tonic::transport::Error> {
    connect_with(Endpoint::from_static("http://localhost"), path).await
}

pub async fn connect_with(
    endpoint: Endpoint,
    path: &Path,
) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let stream = socket::connect(&path)?;
            stream.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(UnixStream::from_std(stream)?))
        }
    });
    endpoint.connect_with_connector(connector).await
}

/// Asserts a gRPC code and that the message has every one of these parts.
#[track_caller]
pub fn assert_status(result: Result<(), Status>, code: Code, parts: &[&str]) {
    let status = result.expect_err("it should fail");
    assert_eq!(status.code(), code, "{}", status.message());
    for part in parts {
        assert!(status.message().contains(part), "{part:?} is not in {:?}", status.message());
    }
}
