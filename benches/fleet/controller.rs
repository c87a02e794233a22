//! The controller's process, as it is shipped.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::api_server::ApiServer;

const START: Duration = Duration::from_mins(5);
/// `/proc` counts in these.
const TICKS: f64 = 100.0;

/// A replica. Killed when it is dropped.
pub struct Controller {
    child: Child,
    pub issuer: SocketAddr,
    http: SocketAddr,
    scratch: TempDir,
}

// === impl Controller ===

impl Controller {
    /// Starts one that listens at this port and the next.
    pub fn start(api: &ApiServer, replica: &str, port: u16, args: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let kubeconfig = scratch.path().join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig("svid-csi")).unwrap();
        let issuer = SocketAddr::from(([127, 0, 0, 1], port));
        let http = SocketAddr::from(([127, 0, 0, 1], port + 1));
        let file = |name: &str| fs::File::create(scratch.path().join(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_svid-csi"))
            .args(["controller", "--kubeconfig", "--trust-domain", "example.org"])
            .args(["--driver-service-account", "svid-csi/svid-csi", "--replica", replica])
            .args(["--http-listen", &http.to_string(), "--issuer-listen", &issuer.to_string()])
            .args(args)
            .env("KUBECONFIG", &kubeconfig)
            // The audit stream costs what it costs.
            .stdout(file("audit"))
            .stderr(file("log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, issuer, http, scratch }
    }

    /// Until it can sign.
    pub async fn ready(&mut self) -> Duration {
        let began = Instant::now();
        while self.ask("/readyz").await.is_none() {
            if began.elapsed() > START || self.child.try_wait().unwrap().is_some() {
                panic!("the controller is not ready: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    }

    /// The body of an answer that is OK.
    pub async fn ask(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.http).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: controller\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// Resident memory in MiB, and the most that it ever was.
    pub fn resident(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// The processor's time that it has had.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: f64 = [11, 12].map(|n: usize| fields[n].parse::<f64>().unwrap()).iter().sum();
        Duration::from_secs_f64(ticks / TICKS)
    }

    /// How many lines of audit there are.
    pub fn audited(&self) -> usize {
        fs::read(self.file("audit")).unwrap().iter().filter(|byte| **byte == b'\n').count()
    }

    /// Has the next CA made, as a person does.
    pub fn rotate_ca(&self, api: &ApiServer) {
        let kubeconfig = self.file("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig("svid-csi")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_svid-csi"));
        command.args(["ca", "rotate", "--no-wait", "--namespace", "svid-csi"]);
        // Nobody waits for it: what it asks is this very process.
        drop(command.env("KUBECONFIG", &kubeconfig).stdout(Stdio::null()).spawn().unwrap());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.scratch.path()).join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}
