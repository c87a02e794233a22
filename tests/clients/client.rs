//! A client that runs as in a pod, and everything that it tells.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};

use crate::{
    curl,
    event::{Event, Told},
    plugin::{Node, Pod},
    spec::Spec,
};

pub struct Client {
    pub spec: Spec,
    pub pod: Pod,
    child: Child,
    pid: Option<u32>,
    told: Arc<Mutex<Vec<Told>>>,
    errors: PathBuf,
    _reader: JoinSet<()>,
}

// === impl Client ===

impl Client {
    pub fn start(node: &Node, spec: Spec, pod: Pod, programs: &Path, more: &[&str]) -> Self {
        let errors = node.path(&format!("{}.stderr", spec.name));
        let mut child = contained(&node.target(&pod), programs, spec.directory)
            .args(spec.command)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut reader = JoinSet::new();
        reader.spawn(read(child.stdout.take().unwrap(), Arc::clone(&told), spec.one_shot));
        let pid = child.id();
        Self { spec, pod, child, pid, told, errors, _reader: reader }
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// The pod whose volume a client gets.
    pub fn pod(spec: &Spec, n: usize) -> Pod {
        let mut pod = Pod::new(n).with("ttl", spec.ttl);
        pod.service_account = spec.name.to_owned();
        pod
    }

    /// Whether it is the process that it was.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none() && self.child.id() == self.pid
    }

    /// The end of what it wrote for a person.
    pub fn complaints(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The last that `pick` finds in what it told.
    pub fn last<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Option<T> {
        self.told().iter().rev().find_map(|told| pick(&told.event))
    }
}

/// A command in the container of a client, without the client.
pub fn contained(volume: &Path, programs: &Path, directory: &str) -> Command {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new("unshare");
    command
        .arg("--mount")
        .arg(clients.join("container"))
        .args([volume, programs, &clients.join(directory)])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn read(stdout: ChildStdout, told: Arc<Mutex<Vec<Told>>>, grpcurl: bool) {
    let mut lines = BufReader::new(stdout).lines();
    let mut message = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let at = Instant::now();
        let events = if grpcurl {
            message += &line;
            // It indents what is inside of a message.
            if line != "}" {
                continue;
            }
            curl::events(&std::mem::take(&mut message))
        } else {
            vec![serde_json::from_str(&line).unwrap_or_else(|error| Event::Error {
                what: "harness".to_owned(),
                text: format!("{error}: {line}"),
            })]
        };
        told.lock().unwrap().extend(events.into_iter().map(|event| Told { at, event }));
    }
}
