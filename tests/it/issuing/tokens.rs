//! The pods' tokens: brought by kubelet, missed after a restart, and never a reason to break what
//! lives.

use std::fs;

use svid_csi::{
    clock::{Clock, SystemClock},
    jose,
};
use svid_csi_proto::workload::JwtsvidRequest;
use tonic::{Code, Status};

use super::{Behaviour, Cluster, LATER, TOKENS, tokens};
use crate::{
    plugin::{Node, Pod, assert_status, eventually, on_a_node},
    process::get,
    volume::checked,
    workload_api::client,
};

/// As the pod asks for it, at its socket.
pub async fn fetch_jwt(node: &Node, pod: &Pod, audience: &str) -> Result<String, Status> {
    let socket = node.target(pod).join("spiffe.sock");
    let mut api = client::with_header(&socket).await;
    let request =
        JwtsvidRequest { audience: vec![audience.to_owned()], ..JwtsvidRequest::default() };
    let svid = api.fetch_jwtsvid(request).await?.into_inner().svids.remove(0);
    Ok(svid.svid)
}

impl Cluster {
    fn serial(&self, pod: &Pod) -> String {
        checked(&self.node, pod).svid.serial_hex().to_owned()
    }

    pub async fn jwt(&self, pod: &Pod, audience: &str) -> Result<String, Status> {
        fetch_jwt(&self.node, pod, audience).await
    }

    fn last_error(&self, pod: &Pod) -> Option<String> {
        let record = self.node.record(pod)?;
        record["lastError"]["message"].as_str().map(ToOwned::to_owned)
    }
}

/// Invariant 4: sockets and X.509 answer at once; only what needs the pod's token waits.
#[test]
fn after_a_restart_a_renewal_waits_for_kubelet() {
    on_a_node(async || {
        let mut cluster = Cluster::start(1, &[]).await;
        let pod = Pod::new(1).with("ttl", "30s");
        cluster.publish(&pod, "pod.token.1").await.unwrap();
        let serial = cluster.serial(&pod);
        cluster.restart().await;
        let held = client::with_header(&cluster.node.target(&pod).join("spiffe.sock"))
            .await
            .fetch_x509svid(svid_csi_proto::workload::X509svidRequest {})
            .await;
        assert!(held.is_ok(), "the socket answers at once");
        let asked = cluster.shared.seen().len();
        eventually("the renewal is due and waits", async || {
            let metrics = get(&cluster.node, "/metrics").await.1;
            metrics.contains("svid_csi_volumes_waiting_for_pod_token 1").then_some(())
        })
        .await;
        assert_eq!(cluster.serial(&pod), serial);
        let error = cluster.last_error(&pod).unwrap();
        assert!(error.contains("waits for kubelet's republish"), "{error}");
        assert_eq!(cluster.shared.seen().len(), asked, "nobody is asked without a proof");
        let failed = get(&cluster.node, "/metrics").await.1;
        let failed = failed.lines().find(|it| it.contains(r#"renewals_total{result="error""#));
        assert!(failed.unwrap().ends_with(" 1"), "no storm: {failed:?}");
        assert!(!cluster.node.log().contains("expects no"), "as it must be");

        cluster.publish(&pod, "pod.token.2").await.unwrap();
        eventually("it is renewed at once", async || {
            (cluster.serial(&pod) != serial).then_some(())
        })
        .await;
        let seen = cluster.shared.seen();
        assert_eq!(seen.last().unwrap().pod_token, "pod.token.2");
        assert_eq!(cluster.last_error(&pod), None);
        let metrics = get(&cluster.node, "/metrics").await.1;
        assert!(metrics.contains("svid_csi_volumes_waiting_for_pod_token 0"));
        cluster.node.unpublish(&pod).await.unwrap();
    });
}

#[test]
fn a_token_that_was_refused_or_has_expired_is_waited_out() {
    on_a_node(async || {
        let cluster = Cluster::start(1, &[]).await;
        let (refused, expiring) = (Pod::new(1).with("ttl", "12s"), Pod::new(2).with("ttl", "12s"));
        cluster.publish(&refused, "pod.token.old").await.unwrap();
        cluster.node.prepare(&expiring);
        let soon = SystemClock.now() + std::time::Duration::from_secs(9);
        let soon = humantime(soon);
        cluster
            .node
            .publish_raw(cluster.request(&expiring, "pod.token.expiring", &soon))
            .await
            .unwrap();
        cluster.shared.behave(Behaviour::Distrusts("pod.token.old"));
        for (pod, part) in
            [(&refused, "it has expired"), (&expiring, "the pod's token has expired")]
        {
            eventually("its renewal fails", async || {
                cluster.last_error(pod).filter(|error| error.contains(part))
            })
            .await;
        }
        let used =
            |token: &str| cluster.shared.seen().iter().filter(|it| it.pod_token == token).count();
        assert_eq!(used("pod.token.expiring"), 1, "for its publish only");
        for pod in [&refused, &expiring] {
            cluster.publish(pod, "pod.token.new").await.unwrap();
            eventually("another token mends it", async || {
                cluster.last_error(pod).is_none().then_some(())
            })
            .await;
        }
        for pod in [&refused, &expiring] {
            cluster.node.unpublish(pod).await.unwrap();
        }
    });
}

/// Invariant 3: on a live volume nothing about tokens is an error; a new one needs one.
#[test]
fn tokens_that_cannot_be_used_fail_new_volumes_only() {
    on_a_node(async || {
        let cluster = Cluster::start(1, &[]).await;
        let live = Pod::new(1);
        cluster.publish(&live, "pod.token.1").await.unwrap();
        let other = r#"{"vault":{"token":"a.b.c","expirationTimestamp":"2099-01-01T00:00:00Z"}}"#;
        for (json, code, part) in [
            (None, Code::FailedPrecondition, "tokenRequests"),
            (Some("{}".to_owned()), Code::FailedPrecondition, "tokenRequests"),
            (Some(other.to_owned()), Code::FailedPrecondition, "add it to `tokenRequests`"),
            (Some("no JSON: c2VjcmV0".to_owned()), Code::FailedPrecondition, "can't be read"),
            (Some(tokens("c2VjcmV0 ", LATER)), Code::FailedPrecondition, "no JWS"),
            (Some(tokens("a.b.c", "2020-01-01T00:00:00Z")), Code::Unavailable, "has expired"),
        ] {
            let request = |pod: &Pod| {
                let mut request = cluster.node.request(pod);
                if let Some(json) = &json {
                    request.secrets.insert(TOKENS.to_owned(), json.clone());
                }
                request
            };
            cluster.node.publish_raw(request(&live)).await.unwrap();
            let new = Pod::new(2);
            cluster.node.prepare(&new);
            let refused = cluster.node.publish_raw(request(&new)).await;
            if let Err(status) = &refused {
                assert!(!status.message().contains("c2Vj"), "{status}");
            }
            assert_status(refused, code, &[part]);
            cluster.node.unpublish(&new).await.unwrap();
        }
        // What was held before is held still.
        cluster.jwt(&live, "db").await.unwrap();
        cluster.node.unpublish(&live).await.unwrap();
    });
}

/// The same for `--signer controller` and for `--signer csr` with the controller beside it.
#[test]
fn jwt_svids_are_the_controllers_and_wait_for_a_token_where_none_is_cached() {
    for signer in ["controller", "csr"] {
        on_a_node(async || {
            let mut cluster = Cluster::start(1, &[]).await;
            let pod = Pod::new(1);
            cluster.publish(&pod, "pod.token.1").await.unwrap();
            if signer == "csr" {
                // Its volumes are as good for another signer.
                cluster.use_csr();
                cluster.restart().await;
                cluster.publish(&pod, "pod.token.1").await.unwrap();
            }
            let first = cluster.jwt(&pod, "db").await.unwrap();
            assert_eq!(cluster.jwt(&pod, "db").await.unwrap(), first, "cached");
            let keys: std::sync::Arc<[_]> = [cluster.shared.jwt_key.authority().clone()].into();
            let of = |_: &_| Some(keys.clone());
            let verified = jose::verify(&first, "db", of, SystemClock.now()).unwrap();
            assert_eq!(verified.id.as_str(), pod.id());
            let last = cluster.shared.seen().pop().unwrap();
            assert!(last.x509.is_none() && last.pod_token == "pod.token.1");

            cluster.restart().await;
            let status = cluster.jwt(&pod, "db").await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("waits for kubelet's republish"), "{status}");
            cluster.publish(&pod, "pod.token.2").await.unwrap();
            cluster.jwt(&pod, "db").await.unwrap();

            cluster.shared.behave(Behaviour::Denies);
            let status = cluster.jwt(&pod, "other").await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::PermissionDenied, "no identity issued")
            );
            cluster.node.unpublish(&pod).await.unwrap();
        });
    }
}

/// kubelet writes a new one long before the end; the controller may be the first to notice.
#[test]
fn the_drivers_token_is_read_again() {
    on_a_node(async || {
        let cluster = Cluster::start(1, &[]).await;
        cluster.publish(&Pod::new(1), "pod.token.1").await.unwrap();
        cluster.write_driver_token("second");
        cluster.shared.behave(Behaviour::Distrusts("pod.token.2"));
        let refused = cluster.publish(&Pod::new(2), "pod.token.2").await;
        assert_status(refused, Code::FailedPrecondition, &["the pod's token"]);
        let seen = cluster.shared.seen();
        let shown: Vec<_> = seen.iter().map(|seen| seen.authorization.clone()).collect();
        let bearer = |part| format!("Bearer {}", super::driver_token(part));
        assert_eq!(shown, [bearer("first"), bearer("first"), bearer("second")]);
        // One for the API server is shown to nobody.
        fs::write(cluster.node.path("driver-token"), "c2VjcmV0").unwrap();
        let refused = eventually("it is read", async || {
            let refused = cluster.publish(&Pod::new(3), "pod.token.3").await.err();
            if refused.is_none() {
                cluster.node.unpublish(&Pod::new(3)).await.unwrap();
            }
            refused
        })
        .await;
        assert_status(Err(refused), Code::FailedPrecondition, &["driver-token", "no JWT"]);
        assert!(!cluster.node.log().contains("c2VjcmV0"));
        cluster.node.unpublish(&Pod::new(1)).await.unwrap();
    });
}

fn humantime(time: std::time::SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap()
}
