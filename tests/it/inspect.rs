//! `svid-csi inspect` and `version`, on volumes that the node plugin really published.

mod bad;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use svid_csi::{
    pki::{PrivateKey, certificates_from_pem},
    sys::in_private_mount_namespace,
};

use crate::plugin::{Node, Pod, on_a_node};

const BIN: &str = env!("CARGO_BIN_EXE_svid-csi");

/// What one call printed, and its exit status.
struct Shown {
    code: Option<i32>,
    text: String,
    json: Value,
}

// === impl Shown ===

impl Shown {
    #[track_caller]
    fn by(mut command: Command) -> Self {
        // Nothing but arguments and terminal decides.
        command.env_remove("NO_COLOR").env_remove("SVID_CSI_DRIVER_NAME");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self {
            code: output.status.code(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            text: text + &stderr,
        }
    }

    /// The problems of the first path: severity and code.
    fn problems(&self) -> Vec<(&str, &str)> {
        let problems = self.json["results"][0]["problems"].as_array().unwrap();
        let text = |problem: &'_ Value, name| problem[name].as_str().unwrap().to_owned().leak();
        problems
            .iter()
            .map(|problem| (&*text(problem, "severity"), &*text(problem, "code")))
            .collect()
    }

    fn result(&self) -> &Value {
        &self.json["results"][0]
    }
}

fn command(paths: &[&Path], more: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command.arg("inspect").args(more).args(paths);
    command
}

#[track_caller]
fn json(path: &Path) -> Shown {
    Shown::by(command(&[path], &["-o", "json"]))
}

#[track_caller]
fn against(path: &Path, bundle: &Path) -> Shown {
    let bundle = bundle.to_str().unwrap();
    Shown::by(command(&[path], &["-o", "json", "--bundle", bundle]))
}

/// Nothing of the key is in what was printed.
#[track_caller]
fn assert_no_key(shown: &Shown, pem: &str) {
    for line in pem.lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.text.contains(line), "a key was printed");
    }
}

#[test]
fn every_layout_is_good_and_recognised_with_and_without_its_record() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let layouts = [
            ("tls", "tls.crt", "tls.key", "ca.crt"),
            ("spiffe-helper", "svid.pem", "svid_key.pem", "svid_bundle.pem"),
            ("certs.d", "client.cert", "client.key", "ca.crt"),
            (
                "pod-certificate",
                "credential-bundle.private-key.pem",
                "credential-bundle.private-key.pem",
                "example.org.x509.pem",
            ),
        ];
        for (n, (layout, certificate, key, bundle)) in layouts.into_iter().enumerate() {
            let pod = Pod::new(n).with("layout", layout);
            node.publish(&pod).await.unwrap();
            let target = node.target(&pod);
            let record = node.record(&pod).unwrap();
            let shown = json(&target);
            assert_eq!(shown.code, Some(0), "{}", shown.text);
            assert_no_key(&shown, &fs::read_to_string(target.join(key)).unwrap());
            let result = shown.result();
            assert_eq!((&result["kind"], &result["status"]), (&"volume".into(), &"ok".into()));
            assert_eq!(result["svid"]["spiffeId"], pod.id());
            assert_eq!(result["svid"]["serial"], record["serial"]);
            assert_eq!(result["svid"]["notAfter"], record["notAfter"]);
            assert_eq!(result["svid"]["renewal"]["at"], record["renewAt"]);
            let left = result["svid"]["expiresInSeconds"].as_i64().unwrap();
            assert!((3500..=3600).contains(&left), "{left}");
            assert_eq!(result["chain"]["verified"], true);
            assert_eq!(result["chain"]["against"], bundle);
            assert_eq!(result["key"]["matches"], true);
            assert_eq!(result["bundle"]["trustDomain"], "example.org");
            assert_eq!(result["bundle"]["authorities"].as_array().unwrap().len(), 1);
            let volume = &result["volume"];
            assert_eq!(volume["layout"], layout);
            assert_eq!(volume["volumeId"], pod.volume_id());
            assert_eq!(volume["pod"]["name"], pod.name);
            assert_eq!(volume["attributes"]["layout"], layout);
            assert_eq!(volume["set"]["sequence"], 1);
            assert_eq!(volume["directory"]["mode"], "0755");
            assert_eq!(volume["socket"]["name"], "spiffe.sock");
            assert_eq!(volume["socket"]["state"], "serving");
            let mount = &volume["mount"];
            assert_eq!((&mount["fsType"], &mount["ours"]), (&"tmpfs".into(), &true.into()));
            assert_eq!(mount["noswap"], record["noswap"]);
            let file = result["files"].as_array().unwrap();
            let file = file.iter().find(|file| file["name"] == certificate).unwrap();
            assert_eq!((&file["mode"], &file["uid"]), (&"0444".into(), &0.into()));

            // Another serial: the record is about another SVID, and the instant is computed.
            let path = target.join(".svid/record.json");
            let mut other = record.clone();
            other["serial"] = "00".into();
            fs::write(&path, other.to_string()).unwrap();
            assert_eq!(json(&target).result()["svid"]["renewal"]["at"], record["renewAt"]);

            // Without the record, the files tell.
            fs::remove_file(path).unwrap();
            let shown = json(&target);
            assert_eq!(shown.problems(), [("error", "record")]);
            let result = shown.result();
            assert_eq!(result["volume"]["layout"], layout);
            assert_eq!(result["key"]["matches"], true);
            assert_eq!(result["chain"]["verified"], true);
            assert!(result["svid"]["renewal"]["earliest"].is_string());
        }
    });
}

#[test]
fn people_see_one_screen_without_colours_in_a_pipe() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1).with("combined-file", "all.pem");
        node.publish(&pod).await.unwrap();
        let target = node.target(&pod);
        let shown = Shown::by(command(&[&target], &[]));
        println!("{}", shown.text);
        assert_eq!(shown.code, Some(0), "{}", shown.text);
        for part in [
            "mount: volume, ok",
            "spiffe://example.org/ns/shop/sa/cart",
            "shop/cart-1, ServiceAccount cart",
            "expires in 59m",
            "in 3",
            "verified against ca.crt",
            "ecdsa-p256, the certificate's",
            "tmpfs from csi.svid.dev, the driver's",
            "0444 0:0  all.pem, bundle.json, ca.crt, tls.crt, tls.key",
        ] {
            assert!(shown.text.contains(part), "{part:?} is not in\n{}", shown.text);
        }
        assert!(shown.text.lines().count() < 24 && !shown.text.contains('\x1b'));
    });
}

#[test]
fn single_files_in_every_form() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1).with("combined-file", "all.pem");
        node.publish(&pod).await.unwrap();
        let target = node.target(&pod);
        let key_pem = fs::read_to_string(target.join("tls.key")).unwrap();
        let leaf = certificates_from_pem(&fs::read_to_string(target.join("tls.crt")).unwrap());
        let root = certificates_from_pem(&fs::read_to_string(target.join("ca.crt")).unwrap());
        fs::write(node.path("leaf.der"), leaf.unwrap()[0].der()).unwrap();
        fs::write(node.path("root.der"), root.unwrap()[0].der()).unwrap();
        let key = PrivateKey::from_pem(&key_pem).unwrap();
        fs::write(node.path("key.der"), key.pkcs8_der()).unwrap();

        for (path, kind) in [
            (target.join("tls.crt"), "certificate"),
            (node.path("leaf.der"), "certificate"),
            (target.join("all.pem"), "combined"),
            (target.join("tls.key"), "key"),
            (node.path("key.der"), "key"),
            (target.join("ca.crt"), "bundle"),
            (node.path("root.der"), "bundle"),
            (target.join("bundle.json"), "bundle"),
        ] {
            let shown = json(&path);
            assert_eq!(shown.code, Some(0), "{}", shown.text);
            assert_no_key(&shown, &key_pem);
            let result = shown.result();
            assert_eq!(result["kind"], kind);
            assert!(result["chain"].is_null(), "nothing was given to verify against");
            match kind {
                "certificate" => assert_eq!(result["svid"]["spiffeId"], pod.id()),
                "combined" => assert_eq!(result["key"]["matches"], true),
                "key" => assert_eq!(result["key"]["algorithm"], "ecdsa-p256"),
                _ => assert_eq!(result["bundle"]["trustDomain"], "example.org"),
            }
        }
        let sequence = &json(&target.join("bundle.json")).json["results"][0]["bundle"]["sequence"];
        assert!(sequence.is_u64());

        // Against bundles in each form, the right one and a foreign one.
        for bundle in [target.join("ca.crt"), target.join("bundle.json"), node.path("root.der")] {
            for path in [&target, &target.join("tls.crt"), &node.path("leaf.der")] {
                let shown = against(path, &bundle);
                assert_eq!(shown.code, Some(0), "{}", shown.text);
                assert_eq!(shown.result()["chain"]["verified"], true);
                let name = bundle.display().to_string();
                assert_eq!(shown.result()["chain"]["against"], name);
            }
        }
        let foreign = Node::started(&[]).await;
        for path in [&target, &target.join("all.pem")] {
            let shown = against(path, &foreign.ca_dir().join("tls.crt"));
            assert_eq!((shown.code, shown.problems()), (Some(1), vec![("error", "notChained")]));
            assert_eq!(shown.result()["chain"]["verified"], false);
        }
    });
}

#[test]
fn whoever_may_read_the_files_needs_no_root() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(node.path(""), open).unwrap();
        let bin = node.path("svid-csi");
        // By another process: a writable descriptor that a fork elsewhere in this one inherits
        // would make the copy busy.
        let copied = Command::new("cp").arg(BIN).arg(&bin).status();
        assert!(copied.unwrap().success());
        let as_user = |pod: &Pod| {
            let mut command = Command::new(&bin);
            command.arg("inspect").args(["-o", "json"]).arg(node.target(pod));
            command.uid(1000).gid(1000);
            Shown::by(command)
        };
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let shown = as_user(&pod);
        assert_eq!(shown.code, Some(0), "{}", shown.text);
        let result = shown.result();
        assert_eq!(result["volume"]["recordRead"], false);
        assert_eq!(result["volume"]["layout"], "tls");
        assert_eq!(result["chain"]["verified"], true);
        assert_eq!(result["key"]["matches"], true);
        assert!(result["svid"]["renewal"]["earliest"].is_string());

        // Whoever may not, is not told that all is good.
        let pod = Pod::new(2).with("uid", "1001");
        node.publish(&pod).await.unwrap();
        let shown = as_user(&pod);
        assert_eq!((shown.code, shown.problems()), (Some(2), vec![("unreadable", "unreadable")]));
        let pod = Pod::new(3).with("uid", "1000");
        node.publish(&pod).await.unwrap();
        let shown = as_user(&pod);
        assert_eq!(shown.code, Some(0), "{}", shown.text);
        assert_eq!(fs::metadata(node.target(&pod)).unwrap().uid(), 1000);
    });
}

#[test]
fn standard_input_and_a_reader_that_goes_early() {
    in_private_mount_namespace(|| {
        let mut child = Command::new(BIN)
            .args(["inspect", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Both ends are closed at once: an empty file, and nobody to tell.
        drop((child.stdin.take(), child.stdout.take()));
        assert_eq!(child.wait().unwrap().code(), Some(2));
    });
}

#[test]
fn version() {
    let print = |more: &[&str]| {
        let mut command = Command::new(BIN);
        command.arg("version").args(more);
        Shown::by(command)
    };
    let text = print(&[]);
    let expected = format!("svid-csi {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((text.code, text.text), (Some(0), expected));
    assert_eq!(print(&["-o", "json"]).json["version"], env!("CARGO_PKG_VERSION"));
}
