//! A thousand volumes at once.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use svid_csi::{
    clock::{Clock, SystemClock},
    sys::process::raise_descriptor_limit,
};
use svid_csi_proto::workload::{JwtsvidRequest, X509BundlesRequest, X509svidRequest};
use tokio::{task::JoinSet, time::sleep};

use super::{Api, Ground, message};
use crate::{
    in_process::authority,
    plugin::{Node, Pod, on_a_node},
};

const VOLUMES: usize = 1_000;

/// Each with an identity of its own.
fn pods() -> impl Iterator<Item = Pod> {
    (0..VOLUMES).map(|n| {
        let mut pod = Pod::new(n);
        pod.service_account = format!("cart-{n}");
        pod
    })
}

/// DESIGN.md §6: the socket is the identity. Whoever asks, and whatever else is asked at the same
/// time, every answer is for the pod whose socket it is.
#[test]
fn every_answer_belongs_to_the_sockets_own_pod() {
    on_a_node(async || {
        raise_descriptor_limit().unwrap();
        let ground = Arc::new(Ground::new());
        let mut publishing = JoinSet::new();
        for pod in pods() {
            let ground = ground.clone();
            publishing.spawn(async move { ground.publish(&pod).await });
        }
        publishing.join_all().await;
        let mut asking = JoinSet::new();
        for (n, pod) in pods().enumerate() {
            let ground = ground.clone();
            asking.spawn(async move {
                let mut api = ground.api(&pod).await;
                let mut serials = BTreeSet::new();
                // Another order for each.
                for call in 0..9 {
                    match (n + call * 7) % 3 {
                        0 => serials.insert(x509(&mut api, &pod).await),
                        1 => jwt(&mut api, &pod, call).await,
                        _ => bundles(&mut api).await,
                    };
                }
                let own = ground.machine.set(&pod).svid.chain()[0].der().to_vec();
                assert!(serials.iter().all(|chain| *chain == own));
            });
        }
        asking.join_all().await;
    });
}

async fn x509(api: &mut Api, pod: &Pod) -> Vec<u8> {
    let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    let [svid] = message(&mut stream).await.svids.try_into().unwrap();
    assert_eq!(svid.spiffe_id, pod.id());
    svid.x509_svid.to_vec()
}

async fn jwt(api: &mut Api, pod: &Pod, call: usize) -> bool {
    let request =
        JwtsvidRequest { audience: vec![format!("a-{}", call % 2)], ..Default::default() };
    let svids = api.fetch_jwtsvid(request).await.unwrap().into_inner().svids;
    assert_eq!(svids[0].spiffe_id, pod.id());
    let svid = svid_csi::jose::JwtSvid::parse(&svids[0].svid).unwrap();
    assert_eq!(svid.id().to_string(), pod.id());
    true
}

async fn bundles(api: &mut Api) -> bool {
    let stream = api.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
    message(&mut stream.into_inner()).await.bundles.contains_key("spiffe://example.org")
}

/// A new authority is in two thousand hands soon after it is published. How soon is measured by
/// `make bench`; here it only must not take a rewrite of a thousand volumes.
#[test]
fn a_bundle_change_reaches_every_stream() {
    on_a_node(async || {
        raise_descriptor_limit().unwrap();
        let ground = Ground::new();
        let mut streams = Vec::new();
        for pod in pods().take(250) {
            ground.publish(&pod).await;
            let mut api = ground.api(&pod).await;
            for _ in 0..2 {
                let stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap();
                streams.push(stream.into_inner());
            }
        }
        for stream in &mut streams {
            message(stream).await;
        }
        let next = authority(SystemClock.now());
        let both = ground.signer.bundle(1).x509_authorities()[0].der().len();
        let both = both + next.certificate().der().len();
        let began = Instant::now();
        ground.trust(&[&ground.signer.authority(), &next], 2);
        for stream in &mut streams {
            assert_eq!(message(stream).await.svids[0].bundle.len(), both);
        }
        println!("{} streams told in {:?}", streams.len(), began.elapsed());
    });
}

/// What an open stream costs, connection and all: the resident memory of the real process, and no
/// time while nothing happens.
#[test]
fn an_open_stream_costs_60_kib_at_most_and_no_cpu() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pods: Vec<_> = pods().take(100).collect();
        for pod in &pods {
            node.publish(pod).await.unwrap();
        }
        // The allocator has what it needs to serve anybody.
        let connect = async |pod: &Pod| {
            let socket = node.target(pod).join("spiffe.sock");
            let mut api = super::with_header(&socket).await;
            let mut stream = api.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
            message(&mut stream).await;
            (api, stream)
        };
        drop(connect(&pods[0]).await);
        let before = resident(node.pid());
        let mut open = Vec::new();
        for _ in 0..10 {
            for pod in &pods {
                open.push(connect(pod).await);
            }
        }
        let each = resident(node.pid()).saturating_sub(before) / open.len();
        println!("{each} KiB for each of {} streams", open.len());
        assert!(each <= 60, "{each} KiB");
        let before = ticks(node.pid());
        sleep(Duration::from_secs(3)).await;
        let used = ticks(node.pid()) - before;
        println!("{used} ticks in 3 s");
        // One tick is 10 ms; the sockets that kubelet calls are looked at now and then.
        assert!(used <= 6, "{used} ticks");
    });
}

/// The time that a process has used, in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let mut times = fields.split(' ').skip(11).take(2);
    times.by_ref().map(|time| time.parse::<u64>().unwrap()).sum()
}

/// Resident memory that is the process's own, in KiB.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
