//! Volumes and files that are not good, each in its own way.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use serde_json::Value;
use svid_csi::pki::{KeyAlgorithm, PrivateKey};

use super::{Shown, against, assert_no_key, command, json};
use crate::plugin::{Node, Pod, eventually, on_a_node};

#[test]
fn an_expired_volume_is_bad() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        node.kill().await;
        let target = node.target(&pod);
        let expired = eventually("it has expired", async || {
            let shown = json(&target);
            shown.problems().contains(&("error", "expired")).then_some(shown)
        });
        let expired = expired.await;
        assert_eq!(expired.code, Some(1));
        assert_eq!(expired.problems(), [("error", "expired"), ("error", "socket")]);
        assert_eq!(expired.result()["volume"]["socket"]["state"], "silent");
        assert_eq!(expired.result()["chain"]["verified"], true);
        let left = &expired.result()["svid"]["expiresInSeconds"];
        assert!(left.as_i64().unwrap() < 0);
        let text = Shown::by(command(&[&target], &[])).text;
        assert!(text.contains("wrong: the certificate expired"), "{text}");
    });
}

#[test]
fn a_renewal_that_really_fails_is_seen() {
    // Invariant 3: the last good set stays, and the failure shows in `inspect`.
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let target = node.target(&pod);
        // Room for the record, but not for a set.
        let mut junk = fs::File::create(target.join("junk")).unwrap();
        let page = [0; 4096];
        while junk.write_all(&page).is_ok() {}
        let length = junk.metadata().unwrap().len();
        junk.set_len(length - 2 * page.len() as u64).unwrap();
        drop(junk);
        let failing = eventually("a renewal fails", async || {
            let shown = json(&target);
            shown.problems().contains(&("error", "renewalFailing")).then_some(shown)
        });
        let failing = failing.await;
        assert_eq!(failing.code, Some(1));
        assert_eq!(failing.result()["chain"]["verified"], true);
        assert_eq!(failing.result()["key"]["matches"], true);
        let error = &failing.result()["volume"]["lastError"];
        assert_eq!(error["class"], "internal", "{error}");
        fs::remove_file(target.join("junk")).unwrap();
        eventually("it is good again", async || (json(&target).code == Some(0)).then_some(()))
            .await;
    });
}

#[test]
fn a_failing_renewal_is_bad_and_says_why() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let path = node.target(&pod).join(".svid/record.json");
        let original = node.record(&pod).unwrap();
        let mut record = original.clone();
        record["lastError"] = serde_json::json!({
            "at": record["notBefore"], "class": "unavailable", "message": "signer away\u{1b}[2J",
        });
        fs::write(&path, record.to_string()).unwrap();
        let shown = json(&node.target(&pod));
        assert_eq!(shown.code, Some(1));
        assert_eq!(shown.problems(), [("error", "renewalFailing")]);
        let error = &shown.result()["volume"]["lastError"];
        assert_eq!(error["class"], "unavailable");
        assert_eq!(error["at"], record["notBefore"]);
        let text = Shown::by(command(&[&node.target(&pod)], &[])).text;
        assert!(text.contains("last error") && text.contains("signer away"), "{text}");
        assert!(!text.contains('\x1b'));

        // Its time has passed, and nobody tried.
        record["lastError"] = Value::Null;
        record["renewAt"] = "2026-01-01T00:00:00Z".into();
        fs::write(&path, record.to_string()).unwrap();
        let shown = json(&node.target(&pod));
        assert_eq!((shown.code, shown.problems()), (Some(1), vec![("error", "renewalOverdue")]));
        record["renewAt"] = original["renewAt"].clone();

        record["state"] = "pending".into();
        record["lastError"] = Value::Null;
        fs::write(&path, record.to_string()).unwrap();
        assert_eq!(json(&node.target(&pod)).problems(), [("error", "notPublished")]);
        for garbage in ["{\"version\":9}", "{", ""] {
            fs::write(&path, garbage).unwrap();
            assert_eq!(json(&node.target(&pod)).problems(), [("error", "record")]);
        }
    });
}

#[test]
fn what_was_tampered_with_is_bad() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let volume = async |n: usize| {
            let pod = Pod::new(n);
            node.publish(&pod).await.unwrap();
            node.target(&pod)
        };
        // A key that is none, and the key of somebody else.
        let target = volume(1).await;
        let key = target.join("tls.key");
        fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n").unwrap();
        let shown = json(&target);
        assert_eq!((shown.code, shown.problems()), (Some(1), vec![("error", "damaged")]));
        let other = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap().to_pem();
        fs::write(&key, other.as_bytes()).unwrap();
        let shown = json(&target);
        assert_eq!((shown.code, shown.problems()), (Some(1), vec![("error", "keyMismatch")]));
        assert_eq!(shown.result()["key"]["matches"], false);
        assert_no_key(&shown, &other);

        // Modes and owners.
        let target = volume(2).await;
        let key = target.join("tls.key").canonicalize().unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
        let shown = json(&target);
        assert_eq!((shown.code, shown.problems()), (Some(1), vec![("error", "modes")]));
        assert!(shown.text.contains("tls.key is 0666 0:0 and should be 0444 0:0"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o444)).unwrap();
        std::os::unix::fs::chown(&target, Some(7), None).unwrap();
        assert_eq!(json(&target).problems(), [("error", "modes")]);

        // A file that is gone, another bundle, another identity, no set.
        let target = volume(3).await;
        let set = target.join(fs::read_link(target.join("..data")).unwrap());
        fs::remove_file(set.join("tls.key")).unwrap();
        assert_eq!(json(&target).problems(), [("error", "missing")]);
        let target = volume(4).await;
        let foreign = Node::started(&[]).await;
        let root = fs::read(foreign.ca_dir().join("tls.crt")).unwrap();
        fs::write(target.join("ca.crt"), root).unwrap();
        let problems = [("error", "bundleMismatch"), ("error", "notChained")];
        assert_eq!(json(&target).problems(), problems);
        let target = volume(5).await;
        let path = target.join(".svid/record.json");
        let record = fs::read_to_string(&path).unwrap();
        fs::write(&path, record.replace("/sa/cart\"", "/sa/other\"")).unwrap();
        assert_eq!(json(&target).problems(), [("error", "identityMismatch")]);
        let target = volume(6).await;
        fs::remove_file(target.join("..data")).unwrap();
        assert_eq!(json(&target).problems(), [("error", "missing")]);
        // A copy on a disk; the temporary directory may be in memory, too.
        let copy = node.path("kubelet/copy");
        let target = volume(7).await;
        let copied = Command::new("cp").arg("-a").args([&target, &copy]).status();
        assert!(copied.unwrap().success());
        let shown = json(&copy);
        let on_disk = shown.result()["volume"]["mount"]["fsType"] != "tmpfs";
        assert_eq!(shown.problems().contains(&("error", "notInMemory")), on_disk);
    });
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let missing = json(&node.path("missing"));
        assert_eq!(
            (missing.code, missing.problems()),
            (Some(2), vec![("unreadable", "unreadable")])
        );
        let plain = json(&node.kubelet());
        assert_eq!((plain.code, plain.problems()), (Some(2), vec![("unreadable", "unrecognised")]));
        let log = json(&node.path("log"));
        assert_eq!((log.code, log.problems()), (Some(2), vec![("unreadable", "unrecognised")]));
        for odd in ["/dev/zero", "/proc/kmsg", "/proc/self/mem"] {
            assert_eq!(json(Path::new(odd)).code, Some(2), "{odd}");
        }
        // Hostile things in a volume's place.
        let hostile = node.path("hostile");
        fs::create_dir_all(hostile.join(".svid")).unwrap();
        symlink("..data", hostile.join("..data")).unwrap();
        symlink("/dev/zero", hostile.join(".svid/record.json")).unwrap();
        assert_eq!(json(&hostile).code, Some(1));
        fs::remove_file(hostile.join("..data")).unwrap();
        symlink("/dev", hostile.join("..data")).unwrap();
        assert_ne!(json(&hostile).code, Some(0));

        // Of several, all are shown and the highest status counts.
        let (target, missing) = (node.target(&pod), node.path("missing"));
        let both = Shown::by(command(&[&missing, &target], &["-o", "json"]));
        assert_eq!((both.code, &both.json["status"]), (Some(2), &"unreadable".into()));
        assert_eq!(both.json["results"].as_array().unwrap().len(), 2);
        assert_eq!(both.json["results"][1]["status"], "ok");
        let text = Shown::by(command(&[&missing, &target], &[])).text;
        assert!(text.contains("missing: can't tell") && text.contains("volume, ok"), "{text}");

        // Usage.
        for arguments in [vec![], vec!["--bundle", "/missing"], vec!["-o", "xml"], vec!["--no"]] {
            let paths: &[&Path] = if arguments.is_empty() { &[] } else { &[&target] };
            assert_eq!(Shown::by(command(paths, &arguments)).code, Some(64), "{arguments:?}");
        }
        let key = target.join("tls.key");
        assert_eq!(against(&target, &key).code, Some(64), "a key is no bundle");
        let help = Shown::by(command(&[], &["--help"]));
        assert!(help.code == Some(0) && help.text.contains("Exit status: 0 if all is good"));
    });
}
