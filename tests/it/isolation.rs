//! The socket is the identity: whatever is called, the answer belongs to the pod whose volume it is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use svid_csi_proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest, X509svidRequest};
use tokio::task::JoinSet;

use crate::{
    plugin::{Pod, on_a_node},
    workload_api::{Ground, message, with_header},
};

const VOLUMES: usize = 1_000;
const CALLERS: usize = 32;
const CALLS: usize = 2_000;

/// The n-th number of a sequence that looks like chance and is the same each time.
fn draw(n: usize) -> usize {
    let mut x = (n as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as usize
}

fn pod(n: usize) -> Pod {
    let mut pod = Pod::new(n);
    pod.service_account = format!("account-{n}");
    pod
}

#[test]
fn every_answer_belongs_to_the_sockets_own_pod() {
    on_a_node(async || {
        let ground = Ground::new();
        let pods: Vec<Pod> = (0..VOLUMES).map(pod).collect();
        for pod in &pods {
            ground.publish(pod).await;
        }
        let sockets = pods.iter().map(|pod| (pod.id(), ground.socket(pod))).collect::<Vec<_>>();
        let (sockets, next) = (Arc::new(sockets), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (sockets, next) = (sockets.clone(), next.clone());
            callers.spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= CALLS {
                        return;
                    }
                    let chance = draw(n);
                    let (id, socket) = &sockets[chance % VOLUMES];
                    let mut api = with_header(socket).await;
                    let request = JwtsvidRequest {
                        // The same for many, so that a cache that mixes them up shows.
                        audience: vec![format!("audience-{}", chance / VOLUMES % 3)],
                        spiffe_id: String::new(),
                    };
                    if (chance / 7).is_multiple_of(2) {
                        let mut stream =
                            api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
                        let svids = message(&mut stream).await.svids;
                        assert_eq!((svids.len(), &svids[0].spiffe_id), (1, id));
                    } else {
                        let audience = request.audience[0].clone();
                        let svids = api.fetch_jwtsvid(request).await.unwrap().into_inner().svids;
                        assert_eq!((svids.len(), &svids[0].spiffe_id), (1, id));
                        let svid = svids[0].svid.clone();
                        let request = ValidateJwtsvidRequest { audience, svid };
                        let found = api.validate_jwtsvid(request).await.unwrap().into_inner();
                        assert_eq!(found.spiffe_id, *id, "what the token itself says");
                    }
                    // Nobody is given another's by asking for it.
                    let (other, _) = &sockets[draw(chance) % VOLUMES];
                    let request = JwtsvidRequest {
                        audience: vec!["audience-0".to_owned()],
                        spiffe_id: other.clone(),
                    };
                    let answer = api.fetch_jwtsvid(request).await;
                    assert_eq!(answer.is_ok(), other == id, "{id} asked for {other}");
                }
            });
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
    });
}
