//! Calls that repeat, race, and meet what is there already (invariants 3 and 7).

use std::{fs, future::poll_fn, process::Command, task::Poll};

use svid_csi_proto::csi::v1::{NodeGetVolumeStatsRequest, NodeUnpublishVolumeRequest};
use tonic::Code;

use crate::{
    plugin::{Node, Pod, assert_status, eventually, on_a_node},
    volume::checked,
};

#[test]
fn what_others_mounted_stays_untouched() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        let target = node.target(&pod);
        fs::create_dir_all(&target).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "somebody-else"])
            .arg(&target)
            .status()
            .unwrap();
        assert!(mounted.success());
        fs::write(target.join("precious"), "data").unwrap();
        let parts = ["mounted already", "not by this driver"];
        assert_status(node.publish(&pod).await, Code::FailedPrecondition, &parts);
        assert_status(node.unpublish(&pod).await, Code::FailedPrecondition, &parts);
        assert_eq!(fs::read_to_string(target.join("precious")).unwrap(), "data");
        assert!(Command::new("umount").arg(&target).status().unwrap().success());
        node.publish(&pod).await.unwrap();
    });
}

/// Nothing was taken away, so nothing stops (invariant 3).
#[test]
fn a_volume_whose_unpublish_fails_goes_on_until_the_next() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod).svid.serial_hex().to_owned();
        let target = node.target(&pod);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "somebody-else"]).arg(&target);
        assert!(mount.status().unwrap().success());
        node.unpublish(&pod).await.unwrap_err();
        assert!(Command::new("umount").arg(&target).status().unwrap().success());
        eventually("it is renewed", async || {
            (checked(&node, &pod).svid.serial_hex() != before).then_some(())
        })
        .await;
        node.unpublish(&pod).await.unwrap();
        assert!(node.mounts().is_empty() && !target.exists());
    });
}

#[test]
fn a_volume_or_target_that_is_taken() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod).svid.serial_hex().to_owned();

        let mut moved = node.request(&Pod::new(2));
        node.prepare(&Pod::new(2));
        moved.volume_id = pod.volume_id();
        let result = node.publish_raw(moved).await;
        assert_status(result, Code::FailedPrecondition, &["published at", "unpublish"]);

        let mut usurper = node.request(&pod);
        usurper.volume_id = "csi-other".to_owned();
        let result = node.publish_raw(usurper).await;
        assert_status(result, Code::AlreadyExists, &[&pod.volume_id()]);

        let changed = pod.clone().with("ttl", "2h");
        assert_status(node.publish(&changed).await, Code::AlreadyExists, &["can't change"]);

        let request = NodeUnpublishVolumeRequest {
            volume_id: "csi-other".to_owned(),
            target_path: node.target(&pod).display().to_string(),
        };
        assert!(node.csi().await.node_unpublish_volume(request).await.is_err());
        // All the while the volume was left alone.
        assert_eq!(checked(&node, &pod).svid.serial_hex(), before);
        node.publish(&pod).await.unwrap();
        assert_eq!(checked(&node, &pod).svid.serial_hex(), before);
    });
}

#[test]
fn a_new_pod_token_is_not_another_request_and_is_never_kept() {
    on_a_node(async || {
        let node = Node::started(&["--log-level", "debug"]).await;
        let pod = Pod::new(1);
        node.prepare(&pod);
        for token in ["first-secret-token", "second-secret-token"] {
            let mut request = node.request(&pod);
            let json = format!(r#"{{"svid.dev":{{"token":"{token}"}}}}"#);
            let key = "csi.storage.k8s.io/serviceAccount.tokens";
            request.volume_context.insert(key.to_owned(), json.clone());
            request.secrets.insert(key.to_owned(), json);
            node.publish_raw(request).await.unwrap();
        }
        let kept = format!("{}{}", node.log(), node.record(&pod).unwrap());
        assert!(!kept.contains("secret-token"), "{kept}");
    });
}

#[test]
fn calls_that_repeat_and_calls_that_race() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.prepare(&pod);
        for _ in 0..20 {
            let calls = (0..8).map(|_| node.publish_raw(node.request(&pod)));
            for result in all_of(calls).await {
                result.unwrap();
            }
            assert_eq!(node.mounts().len(), 1, "never one mount on another");
            checked(&node, &pod);
            let calls = (0..8).map(|_| node.unpublish(&pod));
            for result in all_of(calls).await {
                result.unwrap();
            }
            assert!(node.mounts().is_empty() && !node.target(&pod).exists());
        }
        for _ in 0..50 {
            let request = node.request(&pod);
            let (published, unpublished) =
                tokio::join!(node.publish_raw(request), node.unpublish(&pod));
            unpublished.unwrap();
            match published {
                // Either order is fine, but nothing in between.
                Ok(()) if node.mounts().is_empty() => assert!(!node.target(&pod).exists()),
                Ok(()) => drop(checked(&node, &pod)),
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
            }
        }
        node.unpublish(&pod).await.unwrap();
        assert!(node.mounts().is_empty());
    });
}

/// Runs them side by side.
async fn all_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(output) => {
                done.push(output);
                false
            }
            Poll::Pending => true,
        });
        if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done
}

#[test]
fn stats_of_volumes_and_of_none() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let stats = |id: String, path: String| async {
            let request = NodeGetVolumeStatsRequest {
                volume_id: id,
                volume_path: path,
                ..NodeGetVolumeStatsRequest::default()
            };
            node.csi().await.node_get_volume_stats(request).await.map(tonic::Response::into_inner)
        };
        let path = node.target(&pod).display().to_string();
        let found = stats(pod.volume_id(), path.clone()).await.unwrap();
        let condition = found.volume_condition.unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
        assert!(found.usage.iter().all(|usage| usage.used > 0 && usage.used < usage.total));
        let wrong = [
            ("csi-unknown".to_owned(), path.clone(), Code::NotFound),
            (pod.volume_id(), format!("{path}x"), Code::NotFound),
            (pod.volume_id(), "/etc".to_owned(), Code::NotFound),
            (String::new(), path, Code::InvalidArgument),
            (pod.volume_id(), String::new(), Code::InvalidArgument),
        ];
        for (id, path, code) in wrong {
            assert_eq!(stats(id, path).await.unwrap_err().code(), code);
        }
        assert!(
            Command::new("umount").arg("-l").arg(node.target(&pod)).status().unwrap().success()
        );
        let path = node.target(&pod).display().to_string();
        let condition = stats(pod.volume_id(), path).await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains("not mounted"));
        // kubelet's republish mends it.
        node.publish(&pod).await.unwrap();
        checked(&node, &pod);
    });
}

#[test]
fn unpublish_of_what_is_unknown_or_gone_with_a_reboot() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.unpublish(&pod).await.unwrap();
        fs::create_dir_all(node.target(&pod)).unwrap();
        node.unpublish(&pod).await.unwrap();
        assert!(!node.target(&pod).exists());
        node.publish(&pod).await.unwrap();
        assert!(
            Command::new("umount").arg("-l").arg(node.target(&pod)).status().unwrap().success()
        );
        node.unpublish(&pod).await.unwrap();
        node.unpublish(&pod).await.unwrap();
        assert!(!node.target(&pod).exists());
    });
}
