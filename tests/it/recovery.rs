//! What a restart finds, and what it makes of it (invariants 3 and 4).

use std::{fs, process::Command};

use crate::{
    local_ca::{new_ca, put},
    plugin::{DRIVER, Node, Pod, eventually, on_a_node},
    volume::{Set, checked},
};

/// What happens to a record; `None` removes it.
type Damage<'a> = &'a dyn Fn(&str) -> Option<String>;

fn serial(node: &Node, pod: &Pod) -> String {
    checked(node, pod).svid.serial_hex().to_owned()
}

fn mount_ours(node: &Node, pod: &Pod) {
    fs::create_dir_all(node.target(pod)).unwrap();
    let mut mount = Command::new("mount");
    let mounted = mount.args(["-t", "tmpfs", DRIVER]).arg(node.target(pod)).status().unwrap();
    assert!(mounted.success());
}

#[test]
fn a_restart_resumes_rotation_and_issues_nothing_that_is_fresh() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let (long, short) = (Pod::new(1), Pod::new(2).with("ttl", "10s"));
        node.publish(&long).await.unwrap();
        node.publish(&short).await.unwrap();
        let before = [serial(&node, &long), serial(&node, &short)];
        node.kill().await;
        node.start().await;
        assert_eq!(serial(&node, &long), before[0]);
        eventually("the short one is renewed with no help", async || {
            let set = Set::read(&node.target(&short)).unwrap();
            set.check(&short.id()).unwrap();
            (set.svid.serial_hex() != before[1]).then_some(())
        })
        .await;
        assert_eq!(serial(&node, &long), before[0]);
        node.publish(&long).await.unwrap();
        assert_eq!(serial(&node, &long), before[0]);
        assert_eq!(node.mounts().len(), 2);
        node.unpublish(&long).await.unwrap();
        node.unpublish(&short).await.unwrap();
        assert!(node.mounts().is_empty());
    });
}

#[test]
fn an_svid_that_expired_while_the_plugin_was_away_is_renewed() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let old = serial(&node, &pod);
        node.kill().await;
        eventually("the SVID expires", async || {
            let set = Set::read(&node.target(&pod)).expect("the files stay");
            set.check(&pod.id()).is_err().then_some(())
        })
        .await;
        node.start().await;
        eventually("it is renewed", async || {
            let set = Set::read(&node.target(&pod)).unwrap();
            (set.svid.serial_hex() != old && set.check(&pod.id()).is_ok()).then_some(())
        })
        .await;
    });
}

#[test]
fn a_mount_whose_publish_never_answered_is_removed() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        let (bare, garbage) = (Pod::new(1), Pod::new(2));
        mount_ours(&node, &bare);
        mount_ours(&node, &garbage);
        fs::create_dir(node.target(&garbage).join(".svid")).unwrap();
        fs::write(node.target(&garbage).join(".svid/record.json"), "{").unwrap();
        node.start().await;
        assert!(node.mounts().is_empty() && !node.target(&bare).exists());
        node.publish(&bare).await.unwrap();
        checked(&node, &bare);
    });
}

#[test]
fn a_volume_whose_record_is_lost_stays_and_is_taken_up_by_the_next_republish() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pods: Vec<_> = (0..7).map(Pod::new).collect();
        for pod in &pods {
            node.publish(pod).await.unwrap();
        }
        let before: Vec<_> = pods.iter().map(|pod| serial(&node, pod)).collect();
        node.kill().await;
        let damage: [Damage<'_>; 7] = [
            &|_| None,
            &|_| Some("not json".to_owned()),
            &|text| Some(text.replace(r#""version": 1"#, r#""version": 2"#)),
            &|text| Some(text.replace("mount\"", "elsewhere\"")),
            &|text| Some(text[..text.len() / 2].to_owned()),
            &|_| Some("\0".repeat(1 << 20)),
            // Another identity for the same pod.
            &|text| Some(text.replacen(r#"namespace": "shop""#, r#"namespace": "bank""#, 1)),
        ];
        for (pod, damage) in pods.iter().zip(damage) {
            let path = node.target(pod).join(".svid/record.json");
            let text = fs::read_to_string(&path).unwrap();
            match damage(&text) {
                Some(damaged) => {
                    assert_ne!(damaged, text);
                    fs::write(&path, damaged).unwrap();
                }
                None => fs::remove_file(&path).unwrap(),
            }
        }
        node.start().await;
        for (pod, before) in pods.iter().zip(&before) {
            assert_eq!(&serial(&node, pod), before, "it stays as it is");
            node.publish(pod).await.unwrap();
            assert_eq!(&serial(&node, pod), before, "it is fresh");
            assert_eq!(node.record(pod).unwrap()["state"], "live");
        }
        for pod in &pods {
            node.unpublish(pod).await.unwrap();
        }
        assert!(node.mounts().is_empty());
    });
}

/// Its pod still verifies its peers, and they it, by the CA of before (invariant 6). That nobody
/// else wrote the bundle is what the record vouches for, also when the rest of it is of no use.
#[test]
fn the_roots_of_a_volume_that_cannot_be_recovered_stay_in_every_bundle() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let (lost, other, gone) = (Pod::new(1), Pod::new(2), Pod::new(3));
        node.publish(&lost).await.unwrap();
        node.publish(&gone).await.unwrap();
        let root = checked(&node, &lost).bundle.x509_authorities()[0].clone();
        let record = |pod: &Pod| node.target(pod).join(".svid/record.json");
        fs::copy(record(&gone), record(&lost)).unwrap();
        node.unpublish(&gone).await.unwrap();
        node.kill().await;
        put(&node.ca_dir(), &new_ca());
        node.start().await;
        node.publish(&other).await.unwrap();
        assert!(checked(&node, &other).bundle.contains(&root));
    });
}

#[test]
fn a_volume_without_a_record_is_taken_up_under_settings_that_would_refuse_it() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "12h");
        node.publish(&pod).await.unwrap();
        let before = serial(&node, &pod);
        node.kill().await;
        fs::remove_file(node.target(&pod).join(".svid/record.json")).unwrap();
        node.set_extra(&["--max-ttl", "1h"]);
        node.start().await;
        node.publish(&pod).await.unwrap();
        assert_eq!(serial(&node, &pod), before);
    });
}

/// As after a kill between the swap of a set and the writing of its record.
#[test]
fn a_record_that_is_behind_its_set_is_mended() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "30s");
        node.publish(&pod).await.unwrap();
        let path = node.target(&pod).join(".svid/record.json");
        let (before, record) = (serial(&node, &pod), fs::read(&path).unwrap());
        eventually("it is renewed", async || (serial(&node, &pod) != before).then_some(())).await;
        node.kill().await;
        let now = serial(&node, &pod);
        fs::write(&path, record).unwrap();
        node.start().await;
        assert_eq!(node.record(&pod).unwrap()["serial"], now.as_str());
        assert_eq!(serial(&node, &pod), now);
    });
}

#[test]
fn a_volume_without_a_record_can_be_unpublished() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        node.kill().await;
        fs::remove_file(node.target(&pod).join(".svid/record.json")).unwrap();
        node.start().await;
        node.unpublish(&pod).await.unwrap();
        assert!(node.mounts().is_empty() && !node.target(&pod).exists());
    });
}

#[test]
fn what_others_mounted_is_not_looked_at() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        let pod = Pod::new(1);
        fs::create_dir_all(node.target(&pod)).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "somebody-else"]).arg(node.target(&pod));
        assert!(mount.status().unwrap().success());
        node.start().await;
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(text.contains("somebody-else"), "it is still there");
        let mut unmount = Command::new("umount");
        assert!(unmount.arg(node.target(&pod)).status().unwrap().success());
    });
}

/// A changed setting breaks no running pod.
#[test]
fn settings_that_changed_leave_running_volumes_alone() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "12h");
        node.publish(&pod).await.unwrap();
        let before = serial(&node, &pod);
        node.kill().await;
        node.set_extra(&["--max-ttl", "1h", "--default-ttl", "30m"]);
        node.start().await;
        node.publish(&pod).await.unwrap();
        assert_eq!(serial(&node, &pod), before);
        node.publish(&Pod::new(2).with("ttl", "12h")).await.unwrap_err();
    });
}

#[test]
fn a_full_volume_keeps_its_last_good_set() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let before = serial(&node, &pod);
        let ballast = node.target(&pod).join(".svid/ballast");
        let full = fs::write(&ballast, vec![0; 8 << 20]);
        assert!(full.is_err(), "the tmpfs is full");
        eventually("a renewal fails", async || node.log().contains("renewal failed").then_some(()))
            .await;
        let set = Set::read(&node.target(&pod)).expect("the last good set stands");
        assert_eq!(set.svid.serial_hex(), before);
        fs::remove_file(ballast).unwrap();
        eventually("the next try succeeds", async || {
            (Set::read(&node.target(&pod)).ok()?.svid.serial_hex() != before).then_some(())
        })
        .await;
        checked(&node, &pod);
    });
}
