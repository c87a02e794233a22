//! SIGKILL at every step of what the plugin does, and at random under load (invariants 2, 3, 4
//! and 6). At least 200 kills in all.

use std::{env, fs, path::PathBuf, time::Duration};

use svid_csi::pki::X509Svid;
use svid_csi_proto::csi::v1::{NodeUnpublishVolumeRequest, node_client::NodeClient};
use tokio::{task::JoinSet, time::sleep};
use tonic::Status;

use crate::{
    invariants::{Snapshot, assert_gone, assert_rotates, assert_sound, assert_tidy},
    local_ca::{new_ca, now, put},
    plugin::{Node, Pod, connect, eventually, on_a_node},
    steps::{Steps, Stop, Then},
    volume::checked,
};

/// What kubelet calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    Publish,
    Unpublish,
}

/// A node with volumes that must live through everything.
struct Victim {
    node: Node,
    /// Renewed all the time.
    short: Vec<Pod>,
    /// Most are never renewed.
    others: Vec<Pod>,
    kills: usize,
}

// === impl Victim ===

impl Victim {
    async fn started(short: usize, others: usize) -> Self {
        let victim = Self {
            node: Node::started(&[]).await,
            short: (0..short).map(|n| Pod::new(n).with("ttl", "10s")).collect(),
            others: (100..100 + others).map(Pod::new).collect(),
            kills: 0,
        };
        for pod in victim.live() {
            victim.node.publish(&pod).await.unwrap();
        }
        victim
    }

    fn live(&self) -> Vec<Pod> {
        self.short.iter().chain(&self.others).cloned().collect()
    }

    fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.node.kubelet().join("pods").join(&pod.uid)
    }

    async fn watch(&self, pod: &Pod, stop: Stop) -> Steps {
        Steps::watch(self.node.pid(), &self.pod_dir(pod), stop, Then::Kill).await
    }

    /// Ends the process, unless it is dead already; what its volumes are then.
    async fn bury(&mut self, undecided: &[Pod]) -> Snapshot {
        self.node.kill().await;
        self.look_at_the_dead(undecided)
    }

    fn look_at_the_dead(&mut self, undecided: &[Pod]) -> Snapshot {
        self.kills += 1;
        assert_sound(&self.node, &self.live(), undecided)
    }

    /// Starts the plugin again: what was sound still is, and was not made again.
    async fn revive(&mut self, before: &Snapshot, undecided: &[Pod]) {
        self.node.start().await;
        before.assert_kept(&assert_sound(&self.node, &self.live(), undecided));
    }

    async fn finish(self, least: usize) {
        let Self { node, short, others, kills } = self;
        println!("{kills} kills");
        assert!(kills >= least, "{kills} kills only");
        assert_rotates(&node, &short, &others).await;
    }
}

/// One for which every kind of step is made.
fn a_pod(n: usize) -> Pod {
    let mut pod = Pod::new(n);
    pod.fs_group = Some("2000".to_owned());
    pod
}

/// The SVID of a publish that may not have been answered; what `..data` shows is always whole.
fn swapped_in(node: &Node, pod: &Pod) -> Option<X509Svid> {
    let target = node.target(pod);
    fs::symlink_metadata(target.join("..data")).ok()?;
    Some(checked(node, pod).svid)
}

#[test]
fn a_publish_that_is_killed_at_any_step_can_be_retried() {
    on_a_node(|| killed_publishes(Call::Publish));
}

#[test]
fn a_publish_that_is_killed_at_any_step_can_be_unpublished() {
    on_a_node(|| killed_publishes(Call::Unpublish));
}

async fn killed_publishes(afterwards: Call) {
    let mut victim = Victim::started(3, 1).await;
    let (mut n, mut published) = (1, false);
    // The last round but one dies with everything done and no answer given, the last one after it.
    while !published {
        let pod = a_pod(1_000 + n);
        victim.node.prepare(&pod);
        let mut steps = victim.watch(&pod, Stop::Before(n)).await;
        let result = victim.node.publish(&pod).await;
        published = result.is_ok();
        if !published {
            assert!(steps.stopped().await, "{result:?} after {:?}", steps.seen);
        }
        settle_publish(&mut victim, &pod, afterwards, published).await;
        if published {
            let steps = steps.release().await;
            n = steps.len();
        } else {
            n += 1;
        }
    }
    let pod = a_pod(1_000);
    victim.node.prepare(&pod);
    let mut steps = victim.watch(&pod, Stop::After(n)).await;
    victim.node.publish(&pod).await.unwrap_err();
    assert!(steps.stopped().await);
    settle_publish(&mut victim, &pod, afterwards, true).await;
    victim.finish(30).await;
}

/// `whole`: its set is in place for sure.
async fn settle_publish(victim: &mut Victim, pod: &Pod, afterwards: Call, whole: bool) {
    let undecided = [pod.clone()];
    let before = victim.bury(&undecided).await;
    let set = swapped_in(&victim.node, pod);
    assert!(set.is_some() || !whole);
    if let Some(record) = victim.node.record(pod).filter(|_| !whole) {
        assert_eq!(record["state"], "pending", "it was not answered");
    }
    victim.revive(&before, &undecided).await;
    if afterwards == Call::Publish {
        victim.node.publish(pod).await.unwrap();
        let now = checked(&victim.node, pod).svid;
        if let Some(set) = set {
            assert_eq!(now.serial_hex(), set.serial_hex(), "issued again");
        }
        let mut live = victim.live();
        live.push(pod.clone());
        assert_tidy(&victim.node, &live);
    }
    victim.node.unpublish(pod).await.unwrap();
    assert_gone(&victim.node, pod);
    assert_tidy(&victim.node, &victim.live());
}

#[test]
fn an_unpublish_that_is_killed_at_any_step_can_be_retried() {
    on_a_node(|| killed_unpublishes(Call::Unpublish));
}

#[test]
fn an_unpublish_that_is_killed_at_any_step_can_be_followed_by_a_publish() {
    on_a_node(|| killed_unpublishes(Call::Publish));
}

async fn killed_unpublishes(afterwards: Call) {
    let mut victim = Victim::started(3, 1).await;
    let (mut n, mut ended) = (1, false);
    while !ended {
        let pod = a_pod(1_000 + n);
        victim.node.publish(&pod).await.unwrap();
        let mut steps = victim.watch(&pod, Stop::Before(n)).await;
        let result = victim.node.unpublish(&pod).await;
        ended = result.is_ok();
        if !ended {
            assert!(steps.stopped().await, "{result:?} after {:?}", steps.seen);
        }
        let undecided = [pod.clone()];
        let before = victim.bury(&undecided).await;
        if ended {
            assert_gone(&victim.node, &pod);
        }
        victim.revive(&before, &undecided).await;
        if afterwards == Call::Publish {
            let result = victim.node.publish(&pod).await;
            result.unwrap_or_else(|error| panic!("{error} after {:#?}", steps.seen));
            let mut live = victim.live();
            live.push(pod.clone());
            assert_tidy(&victim.node, &live);
        }
        victim.node.unpublish(&pod).await.unwrap();
        assert_gone(&victim.node, &pod);
        assert_tidy(&victim.node, &victim.live());
        n += 1;
    }
    victim.finish(15).await;
}

#[test]
fn a_renewal_that_is_killed_at_any_step_costs_no_volume_its_set() {
    on_a_node(async || {
        let mut victim = Victim::started(0, 2).await;
        // Spread over the time between renewals, so that there is always one to come soon.
        for n in 0..20 {
            let pod = Pod::new(n).with("ttl", "10s");
            victim.node.publish(&pod).await.unwrap();
            victim.short.push(pod);
            sleep(Duration::from_millis(300)).await;
        }
        let (mut n, mut renewed) = (1, false);
        while !renewed {
            let pod = next_due(&victim);
            let serial = || victim.node.record(&pod).unwrap()["serial"].clone();
            let mut steps = victim.watch(&pod, Stop::Before(n)).await;
            let old = serial();
            renewed = tokio::select! {
                stopped = steps.stopped() => !stopped,
                () = eventually("it is renewed", async || {
                    // Written last.
                    (serial() != old).then_some(())
                }) => true,
            };
            let before = victim.bury(&[]).await;
            victim.revive(&before, &[]).await;
            assert_tidy(&victim.node, &victim.live());
            n += 1;
        }
        victim.finish(15).await;
    });
}

/// The short-lived volume that is renewed next, but not at once.
fn next_due(victim: &Victim) -> Pod {
    let soon = now() + Duration::from_millis(300);
    let due = |pod: &&Pod| {
        let record = victim.node.record(pod).unwrap();
        let text = record["renewAt"].as_str().unwrap();
        let format = &time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(text, format).unwrap()
    };
    let later = victim.short.iter().filter(|pod| due(pod) > soon);
    later.min_by_key(due).expect("one is due later").clone()
}

/// A CA that changed while the plugin was away is put into every volume before csi.sock opens;
/// that is killed at each step of one volume's rewrite, others of which are done or not begun.
#[test]
fn a_bundle_rewrite_that_is_killed_at_any_step_loses_no_trust() {
    on_a_node(async || {
        let mut victim = Victim::started(2, 3).await;
        let pod = victim.others[0].clone();
        let (mut n, mut done) = (1, false);
        let mut before = victim.bury(&[]).await;
        while !done {
            let ca = new_ca();
            put(&victim.node.ca_dir(), &ca);
            victim.node.launch_waiting();
            let mut steps = victim.watch(&pod, Stop::Before(n)).await;
            victim.node.go().await;
            done = tokio::select! {
                stopped = steps.stopped() => !stopped,
                () = answers(&victim.node) => true,
            };
            let after = victim.bury(&[]).await;
            before.assert_kept(&after);
            victim.revive(&after, &[]).await;
            before = assert_tidy(&victim.node, &victim.live());
            for pod in victim.live() {
                let set = checked(&victim.node, &pod);
                assert!(set.bundle.contains(&ca.roots()[0]), "a new CA is in every bundle");
            }
            before.assert_kept(&victim.bury(&[]).await);
            n += 1;
        }
        victim.node.start().await;
        victim.finish(45).await;
    });
}

async fn answers(node: &Node) {
    eventually("csi.sock answers", async || node.answers().await.then_some(())).await;
}

/// Also the first one, which makes a CA.
#[test]
fn a_start_that_is_killed_at_any_step_hinders_no_other() {
    on_a_node(async || {
        let (mut n, mut started) = (1, false);
        while !started {
            let mut node = Node::new(&[]);
            node.launch_waiting();
            let root = node.path("");
            let mut steps = Steps::watch(node.pid(), &root, Stop::Before(n), Then::Kill).await;
            node.go().await;
            started = tokio::select! {
                stopped = steps.stopped() => !stopped,
                () = answers(&node) => true,
            };
            node.kill().await;
            node.start().await;
            let pod = Pod::new(1);
            node.publish(&pod).await.unwrap();
            assert_tidy(&node, &[pod]);
            n += 1;
        }
        println!("{n} kills");
        assert!(n >= 10, "{n}");
    });
}

// --- at random -------------------------------------------------------------------------------

/// Numbers that a seed gives again.
struct Random(u64);

// === impl Random ===

impl Random {
    /// From `SVID_CSI_TEST_SEED`, or a new one; it is shown when the test fails.
    fn seeded() -> Self {
        let seed = env::var("SVID_CSI_TEST_SEED").ok();
        let seed = seed.map(|seed| seed.parse().expect("a number"));
        let seed = seed.unwrap_or_else(|| {
            let since = now().duration_since(std::time::UNIX_EPOCH).unwrap();
            since.as_micros() as u64
        });
        println!("SVID_CSI_TEST_SEED={seed}");
        Self(seed)
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// As many delays of some microseconds as of some milliseconds.
    fn delay(&mut self, longest: Duration) -> Duration {
        let exponent = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_micros(50).max(longest.mul_f64(2_f64.powf(-12.0 * exponent)))
    }
}

#[test]
fn kills_at_random_under_load_lose_nothing() {
    let kills = env::var("SVID_CSI_TEST_KILLS").map_or(60, |kills| kills.parse().unwrap());
    on_a_node(async || {
        let mut random = Random::seeded();
        let mut victim = Victim::started(8, 4).await;
        let mut next = 1_000;
        while victim.kills < kills {
            round(&mut victim, &mut random, &mut next).await;
        }
        victim.finish(kills).await;
    });
}

async fn round(victim: &mut Victim, random: &mut Random, next: &mut usize) {
    let mut calls = JoinSet::new();
    for _ in 0..=random.below(6) {
        let ttl = ["10s", "1h"][random.below(2)];
        let pod = Pod::new(*next).with("ttl", ttl);
        *next += 1;
        calls.spawn(call(&victim.node, pod, Call::Publish));
    }
    // The first four others stay.
    for _ in 0..random.below(4) {
        if victim.others.len() > 4 {
            let n = 4 + random.below(victim.others.len() - 4);
            let pod = victim.others.swap_remove(n);
            calls.spawn(call(&victim.node, pod, Call::Unpublish));
        }
    }
    sleep(random.delay(Duration::from_millis(150))).await;
    victim.node.kill().await;

    let (mut undecided, mut retries) = (Vec::new(), Vec::new());
    for (pod, made, result) in calls.join_all().await {
        match (made, result) {
            (Call::Publish, Ok(())) => victim.others.push(pod),
            (Call::Unpublish, Ok(())) => assert_gone(&victim.node, &pod),
            (made, Err(_)) => {
                undecided.push(pod.clone());
                let retry = made == Call::Publish && random.below(2) == 0;
                retries.push((pod, if retry { made } else { Call::Unpublish }));
            }
        }
    }
    let mut before = victim.look_at_the_dead(&undecided);
    for (pod, call) in &retries {
        if *call == Call::Publish {
            swapped_in(&victim.node, pod);
        }
    }
    if random.below(8) == 0 {
        put(&victim.node.ca_dir(), &new_ca());
    }
    if random.below(3) == 0 {
        victim.node.launch();
        sleep(random.delay(Duration::from_millis(100))).await;
        let after = victim.bury(&undecided).await;
        before.assert_kept(&after);
        before = after;
    }
    victim.revive(&before, &undecided).await;

    let mut calls = JoinSet::new();
    for (pod, made) in retries {
        calls.spawn(call(&victim.node, pod, made));
    }
    for (pod, made, result) in calls.join_all().await {
        result.unwrap();
        match made {
            Call::Publish => victim.others.push(pod),
            Call::Unpublish => assert_gone(&victim.node, &pod),
        }
    }
    assert_tidy(&victim.node, &victim.live());
}

/// A call of kubelet's that needs nothing of the node any more.
pub fn call(
    node: &Node,
    pod: Pod,
    call: Call,
) -> impl Future<Output = (Pod, Call, Result<(), Status>)> + use<> {
    node.prepare(&pod);
    let (path, publish) = (node.csi_socket(), node.request(&pod));
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: publish.volume_id.clone(),
        target_path: publish.target_path.clone(),
    };
    async move {
        let made = async {
            let channel = connect(&path).await;
            let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut csi = NodeClient::new(channel);
            match call {
                Call::Publish => csi.node_publish_volume(publish).await.map(|_| ()),
                Call::Unpublish => csi.node_unpublish_volume(unpublish).await.map(|_| ()),
            }
        };
        let result = made.await;
        (pod, call, result)
    }
}
