//! csi-sanity against the real binary with real mounts.
//!
//! csi-sanity talks to `tests/sanity/proxy`, which adds to the driver's socket what kubelet would
//! have added: pod info and the read-only flag. Nothing made for tests is in the binary.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use svid_csi::sys::namespace::in_private_mount_namespace;

const POD_UID: &str = "3f0e1c2a-5b7d-4c8e-9a10-2b3c4d5e6f70";

/// What only a controller can pass; the proxy's stub is not what is on trial.
const CONTROLLER_ONLY: &str = r"\[(Group)?Controller [A-Za-z]+\]";

/// Node cases that csi-sanity itself leaves out, because they are about capabilities that the
/// driver does not advertise.
const NOT_ADVERTISED: [&str; 6] = [
    "Node Service NodePublishVolume with single node multi writer capability ",
    "Node Service NodeStageVolume ",
    "Node Service NodeUnstageVolume ",
    "Node Service NodeExpandVolume ",
    "Node Service NodeGetVolumeHealth ",
    "Node Service NodeGetStorageHealth ",
];

/// The cases that need a volume, so that a plugin without a controller would skip them.
const MUST_RUN: [&str; 4] = [
    "Node Service should work",
    "Node Service should be idempotent",
    "Node Service NodeUnpublishVolume should remove target path",
    "Node Service NodeGetVolumeStats should fail when volume does not exist on the specified path",
];

/// A process that ends with its owner.
struct Process(Child);

struct Case {
    name: String,
    status: String,
}

/// Invariant 7, as csi-sanity sees it.
#[test]
fn csi_sanity_passes_with_nothing_skipped_but_controller_cases() {
    let tools = build_tools();
    in_private_mount_namespace(|| run(&tools));
}

#[test]
fn the_report_reader_finds_names_and_statuses() {
    let report = r#"<testcase name="[It] Node Service should work" classname="x" status="passed" time="0.1">
      <testcase name="[It] A &amp; B [Controller Server] c" classname="x" status="skipped" time="0">"#;
    let cases = read_cases(report);
    assert_eq!(cases.len(), 2);
    assert_eq!(cases[0].name, "Node Service should work");
    assert_eq!(cases[0].status, "passed");
    assert_eq!(cases[1].status, "skipped");
    assert!(is_controller_only(&cases[1].name));
    assert!(!is_controller_only(&cases[0].name));
}

fn run(tools: &Path) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let kubelet = root.path().join("kubelet");
    let csi_socket = kubelet.join("plugins/csi.svid.dev/csi.sock");
    let registration = kubelet.join("plugins_registry");
    let volumes = kubelet.join(format!("pods/{POD_UID}/volumes/kubernetes.io~csi"));
    for dir in [csi_socket.parent().expect("a parent"), &registration, &volumes] {
        fs::create_dir_all(dir).expect("the kubelet directory");
    }

    let log = root.path().join("node.log");
    let log_file = File::create(&log).expect("a log file");
    let _node = Process(
        Command::new(env!("CARGO_BIN_EXE_svid-csi"))
            .args(["node", "--node-name", "sanity", "--trust-domain", "example.org"])
            .args(["--signer", "local", "--ca-create", "--http-listen", "127.0.0.1:0"])
            .arg("--ca-dir")
            .arg(root.path().join("ca"))
            .arg("--kubelet-dir")
            .arg(&kubelet)
            .arg("--csi-socket")
            .arg(&csi_socket)
            .arg("--registration-dir")
            .arg(&registration)
            .stdout(log_file.try_clone().expect("a log file"))
            .stderr(log_file)
            .spawn()
            .expect("svid-csi starts"),
    );

    let proxy_socket = root.path().join("proxy.sock");
    let mut proxy = Process(
        Command::new(tools.join("proxy"))
            .arg("--driver")
            .arg(&csi_socket)
            .arg("--listen")
            .arg(&proxy_socket)
            .args(["--pod-uid", POD_UID])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the proxy starts"),
    );
    let mut ready = String::new();
    let stdout = proxy.0.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut ready).expect("the proxy's first line");
    assert_eq!(ready.trim(), "ready", "the node did not come up:\n{}", text(&log));

    let report = root.path().join("junit.xml");
    let output = Command::new(tools.join("csi-sanity"))
        .arg(format!("--csi.endpoint=unix:{}", proxy_socket.display()))
        .arg(format!("--csi.mountdir={}", volumes.join("sanity").display()))
        .arg(format!("--csi.stagingdir={}", root.path().join("staging").display()))
        .arg(format!("--ginkgo.skip={CONTROLLER_ONLY}"))
        .arg(format!("--ginkgo.junit-report={}", report.display()))
        .args(["--ginkgo.no-color", "--ginkgo.timeout=5m"])
        .output()
        .expect("csi-sanity starts");
    assert!(
        output.status.success(),
        "csi-sanity: {}\n{}\nnode log:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        text(&log)
    );

    check(&read_cases(&text(&report)));
    assert_eq!(mounts_below(&kubelet), Vec::<String>::new(), "mounts are left behind");
}

fn check(cases: &[Case]) {
    for case in cases.iter().filter(|case| case.status != "passed") {
        let excused = is_controller_only(&case.name)
            || (case.status == "skipped"
                && NOT_ADVERTISED.iter().any(|prefix| case.name.starts_with(prefix)));
        assert!(excused, "{}: {}", case.status, case.name);
    }
    for name in MUST_RUN {
        assert!(
            cases.iter().any(|case| case.name == name && case.status == "passed"),
            "did not run: {name}"
        );
    }
    let passed = cases.iter().filter(|case| case.status == "passed").count();
    assert!(passed >= 17, "only {passed} cases ran");
}

/// Builds csi-sanity and the proxy, pinned by `tests/sanity/go.sum`, into `target/`.
fn build_tools() -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sanity-tools");
    fs::create_dir_all(&tools).expect("the tools directory");
    let status = Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sanity"))
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&tools)
        .args(["./proxy", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"])
        .status()
        .expect("go is installed: csi-sanity is a Go program");
    assert!(status.success(), "building csi-sanity: {status}");
    tools
}

fn is_controller_only(name: &str) -> bool {
    name.contains("[Controller ") || name.contains("[GroupController ")
}

/// The test cases of a JUnit report as ginkgo writes it, one `<testcase …>` tag each.
fn read_cases(report: &str) -> Vec<Case> {
    report
        .split("<testcase ")
        .skip(1)
        .map(|tag| Case {
            name: attribute(tag, "name").trim_start_matches("[It] ").to_owned(),
            status: attribute(tag, "status").to_owned(),
        })
        .filter(|case| !case.name.is_empty() && !case.name.starts_with("[ReportAfterSuite]"))
        .collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let key = format!("{name}=\"");
    let Some(start) = tag.find(&key) else {
        return "";
    };
    tag[start + key.len()..].split('"').next().unwrap_or_default()
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    text(Path::new("/proc/thread-self/mountinfo"))
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&prefix))
        .map(str::to_owned)
        .collect()
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.unwrap_or_else(|error: io::Error| {
        panic!("{}: {error}", path.file_name().unwrap_or(OsStr::new("?")).display())
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

// === impl Process ===

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
