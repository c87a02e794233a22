//! An Envoy that runs as in a pod.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Program, Stdio},
};

use tokio::process::{Child, Command};

use crate::{
    http::get,
    plugin::{Node, Pod, eventually},
};

/// One of the two: its configuration, and where it tells of itself.
pub struct Side {
    configuration: &'static str,
    admin: u16,
}

pub const SERVER: Side = Side { configuration: "server.yaml", admin: 9902 };
pub const CLIENT: Side = Side { configuration: "client.yaml", admin: 9901 };

/// As the documentation has it, and here: so that new connections show what certificates are used.
const CONNECTION_LIFE: [&str; 2] = ["max_connection_duration: 600s", "max_connection_duration: 1s"];

pub struct Proxy {
    admin: u16,
    child: Child,
    log: PathBuf,
}

// === impl Proxy ===

impl Proxy {
    /// An Envoy in this pod that has its secrets.
    pub async fn start(node: &Node, side: &Side, pod: &Pod) -> Self {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let text = fs::read_to_string(clients.join("envoy").join(side.configuration)).unwrap();
        let configuration = text.replace(CONNECTION_LIFE[0], CONNECTION_LIFE[1]);
        let log = node.path(&format!("{}.{}.log", side.configuration, pod.service_account));
        let child = Command::new("unshare")
            .arg("--mount")
            .arg(clients.join("container"))
            .args([&node.target(pod), &program(), &clients.join("envoy")])
            .args(["/programs/envoy/_bin/envoy", "--disable-hot-restart", "--concurrency", "1"])
            .args(["--log-level", "warning", "--config-yaml", &configuration])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut proxy = Self { admin: side.admin, child, log };
        eventually("an Envoy has its secrets", async || {
            assert!(proxy.runs(), "it ended:\n{}", fs::read_to_string(&proxy.log).unwrap());
            proxy.serial().await.map(drop)
        })
        .await;
        proxy
    }

    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The serial number of the certificate that it presents.
    pub async fn serial(&self) -> Option<String> {
        let ready = get(self.admin, "/ready").await.is_ok_and(|(status, _)| status == 200);
        let (_, body) = get(self.admin, "/certs").await.ok().filter(|_| ready)?;
        let told: serde_json::Value = serde_json::from_str(&unchunked(&body)).ok()?;
        let all = told["certificates"].as_array()?;
        let presented = all.iter().find_map(|it| it["cert_chain"][0]["serial_number"].as_str());
        presented.map(serial)
    }

    /// A counter.
    pub async fn stat(&self, name: &str) -> u64 {
        let (_, body) = get(self.admin, "/stats").await.unwrap();
        let body = unchunked(&body);
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in\n{body}")).parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its port must be free when this returns.
        let _ = self.child.start_kill();
        while matches!(self.child.try_wait(), Ok(None)) {
            std::thread::yield_now();
        }
        if std::thread::panicking() {
            println!("--- {} ---\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap());
        }
    }
}

/// In one form, whoever wrote it.
pub fn serial(hex: &str) -> String {
    hex.trim_start_matches('0').to_ascii_lowercase()
}

/// The body without the lengths of its chunks.
fn unchunked(body: &str) -> String {
    let mut lines = body.split_inclusive("\r\n").peekable();
    let length = |line: &str| usize::from_str_radix(line.trim_end(), 16);
    match lines.peek().map(|line| length(line)) {
        Some(Ok(_)) => {}
        _ => return body.to_owned(),
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((head, tail)) = rest.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(head, 16) else { break };
        whole += tail.get(..length).unwrap_or(tail);
        rest = tail.get(length + 2..).unwrap_or_default();
    }
    whole
}

/// Where the pinned release is.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/build");
    let output = Program::new(script).arg("envoy").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "tests/clients/build envoy");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
