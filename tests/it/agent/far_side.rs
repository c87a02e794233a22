//! The stand-in for a SPIRE agent: `tests/agent`, a program over the messages of SPIRE's SDK.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::plugin::Pod;

/// An agent and the server behind it, which outlives it.
pub struct Agent {
    directory: PathBuf,
    socket: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// A registration entry.
pub struct Entry(Value);

// === impl Agent ===

impl Agent {
    /// An agent whose socket and whose server's memory are in this directory, not yet running.
    pub fn new(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("admin.sock");
        Self { directory, socket, running: None }
    }

    pub fn started(directory: PathBuf) -> Self {
        let mut agent = Self::new(directory);
        agent.start();
        agent
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn start(&mut self) {
        let mut child = Command::new(program())
            .arg("--socket")
            .arg(&self.socket)
            .arg("--state")
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut running = Running { child, stdin, stdout: BufReader::new(stdout) };
        assert_eq!(running.line()["ready"], true);
        self.running = Some(running);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.running.take().expect("it runs"));
    }

    /// Keeps its connections and says nothing, or goes on.
    pub fn hang(&self, hang: bool) {
        let running = self.running.as_ref().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(running.child.id()).unwrap());
        kill(pid, if hang { Signal::SIGSTOP } else { Signal::SIGCONT }).unwrap();
    }

    pub fn entry(&mut self, name: &str, entry: Entry) {
        self.tell(&json!({ "do": "entry", "name": name, "entry": entry.0 }));
    }

    /// A command with a name, which may be empty.
    pub fn order(&mut self, what: &str, name: &str) {
        self.tell(&json!({ "do": what, "name": name }));
    }

    pub fn subscriptions(&mut self) -> i64 {
        self.tell(&json!({ "do": "subscriptions" })).as_i64().unwrap()
    }

    fn tell(&mut self, command: &Value) -> Value {
        let running = self.running.as_mut().expect("it runs");
        writeln!(running.stdin, "{command}").unwrap();
        running.line()
    }
}

// === impl Running ===

impl Running {
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the agent answers")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Entry ===

impl Entry {
    /// For every pod of this pod's ServiceAccount, with the ID that the driver would give it.
    pub fn of(pod: &Pod) -> Self {
        let selectors =
            [format!("k8s:ns:{}", pod.namespace), format!("k8s:sa:{}", pod.service_account)];
        Self(json!({ "spiffe_id": pod.id(), "selectors": selectors, "ttl": 3_600 }))
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0[key] = value;
        self
    }
}

/// Built once, as `tests/agent/go.sum` pins it, into `target/`.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spire-agent");
        let status = Command::new("go")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent"))
            .args(["build", "-buildvcs=false", "-mod=readonly", "-o"])
            .arg(&program)
            .status()
            .expect("go is installed: SPIRE's SDK is for Go");
        assert!(status.success(), "building tests/agent: {status}");
        program
    })
}
