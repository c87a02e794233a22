//! `svid-csi demo` for real: it holds, and whatever happens to it, nothing of it stays.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// The demo while it runs, in a temporary directory of its own.
struct Demo {
    root: TempDir,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// How the demo ended.
struct Ended {
    code: Option<i32>,
    stderr: String,
    last_line: String,
}

// === impl Demo ===

impl Demo {
    fn start(args: &[&str], uid: Option<u32>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tmp = root.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_svid-csi"));
        if uid.is_some() {
            // The build's directories may be closed to others.
            fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
            chown(&tmp, uid, uid).unwrap();
            let copy = root.path().join("svid-csi");
            fs::copy(&binary, &copy).unwrap();
            binary = copy;
        }
        let mut command = Command::new(binary);
        command
            .arg("demo")
            .args(args)
            .env("TMPDIR", &tmp)
            // A setting for the node that isn't meant for the demo's.
            .env("SVID_CSI_MAX_TTL", "1s")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { root, child, stdout }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        (!line.is_empty()).then_some(line)
    }

    fn event(&mut self) -> Option<Value> {
        self.line().map(|line| serde_json::from_str(&line).unwrap())
    }

    /// Reads on until an event has this member.
    fn until(&mut self, key: &str, value: impl Into<Value>) -> Value {
        let value = value.into();
        loop {
            let event = self.event().expect("the demo goes on");
            if event[key] == value {
                return event;
            }
            assert_ne!(event["event"], "done", "{event}");
        }
    }

    fn end(mut self) -> Ended {
        let mut last_line = String::new();
        while let Some(line) = self.line() {
            if !line.trim().is_empty() {
                last_line = line;
            }
        }
        self.ended(last_line)
    }

    /// Waits, and checks that no process, mount or file of the demo is left.
    #[track_caller]
    fn ended(mut self, last_line: String) -> Ended {
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        let code = self.child.wait().unwrap().code();
        let tmp = self.root.path().join("tmp");
        let files: Vec<_> = fs::read_dir(&tmp).unwrap().collect();
        assert!(files.is_empty(), "files are left: {files:?}");
        assert_eq!(processes_with(&tmp), [""; 0]);
        Ended { code, stderr, last_line }
    }
}

/// The processes that have the path among their arguments or below their mounts.
fn processes_with(path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let dir = entry.unwrap().path();
        // A process may end while it is looked at.
        let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
        for name in ["cmdline", "mountinfo"] {
            let text = String::from_utf8_lossy(&read(name)).replace('\0', " ");
            if text.contains(&path) {
                found.push(format!("{}: {text}", dir.display()));
            }
        }
    }
    found
}

fn send(pid: &Value, signal: Signal) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[track_caller]
fn holds(uid: Option<u32>, namespace: &str) {
    let mut demo = Demo::start(&["--json"], uid);
    let mut events = Vec::new();
    while let Some(event) = demo.event() {
        events.push(event);
    }
    let ended = demo.ended(String::new());
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["ok"]), (&"done".into(), &true.into()), "{done}");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));

    let all = |key: &'static str, value: &'static str| {
        let events = events.iter().filter(move |event| event[key] == value);
        events.collect::<Vec<_>>()
    };
    assert_eq!(events[0]["event"], "start");
    let steps: Vec<_> =
        all("event", "step").iter().map(|step| step["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=11).collect::<Vec<_>>());
    assert_eq!(all("check", "namespace")[0]["namespace"], namespace);
    let checks = [
        ("ready", 2),
        ("registered", 1),
        ("published", 5),
        ("mounts", 1),
        ("keys", 1),
        ("verified", 10),
        ("peer", 2),
        ("messages", 2),
        ("forgery", 1),
        ("rotated", 2),
        ("fetchedX509", 1),
        ("fetchedJwt", 1),
        ("validated", 1),
        ("refused", 1),
        ("streamOpened", 1),
        ("killed", 1),
        ("intact", 1),
        ("kept", 1),
        ("condition", 1),
        ("streamWentOn", 1),
        ("unpublished", 1),
        ("stopped", 1),
        ("cleared", 1),
    ];
    for (check, count) in checks {
        let found = all("check", check);
        assert_eq!(found.len(), count, "{check}");
        assert!(found.iter().all(|check| check["ok"] == true));
    }
    let ready = all("check", "ready");
    assert_ne!(ready[0]["pid"], ready[1]["pid"]);
    assert!(all("check", "kept")[0]["kept"].as_u64().unwrap() >= 1);
    let rotated = all("event", "rotated");
    assert_eq!(done["rotations"].as_u64().unwrap() as usize, rotated.len());
    for pod in all("check", "published") {
        let renewals = rotated.iter().filter(|event| event["pod"] == pod["pod"]);
        assert!(renewals.clone().count() >= 3, "{pod}");
        assert!(renewals.into_iter().all(|event| event["spiffeId"] == pod["spiffeId"]));
    }
}

// Invariants 2, 3 and 4, seen by OpenSSL.
#[test]
fn it_holds() {
    let root = nix::unistd::geteuid().is_root();
    holds(None, if root { "mount" } else { "user" });
}

#[test]
fn it_holds_for_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return; // as in the test before
    }
    let namespaces = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .uid(NOBODY)
        .gid(NOBODY)
        .status();
    if !namespaces.unwrap().success() {
        println!("skipped: this machine has no unprivileged user namespaces");
        return;
    }
    holds(Some(NOBODY), "user");
}

#[test]
fn ctrl_c_leaves_nothing() {
    let mut demo = Demo::start(&[], None);
    while !demo.line().expect("the demo goes on").contains("SVIDs rotate") {}
    send(&demo.child.id().into(), Signal::SIGINT);
    let ended = demo.end();
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr, "svid-csi: interrupted\n");
}

#[test]
fn a_fault_ends_it_with_the_reason_and_the_plugins_log() {
    let mut demo = Demo::start(&["--json"], None);
    let ready = demo.until("check", "ready");
    // It takes seconds, in which the plugin is looked at all the time.
    demo.until("title", "SVIDs rotate");
    send(&ready["pid"], Signal::SIGKILL);
    let ended = demo.end();
    let done: Value = serde_json::from_str(&ended.last_line).unwrap();
    assert_eq!((&done["event"], &done["ok"]), (&"done".into(), &false.into()));
    assert_eq!(done["step"], 6);
    let reason = done["reason"].as_str().unwrap();
    assert!(reason.contains("ended by itself with signal: 9"), "{reason}");
    assert!(done["log"].as_array().unwrap().len() > 3, "{done}");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);
}

#[test]
fn without_openssl_it_says_what_to_install() {
    let output = Command::new(env!("CARGO_BIN_EXE_svid-csi"))
        .arg("demo")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("apt-get install openssl"), "{stderr}");
}
