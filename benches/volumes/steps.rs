//! What is measured, in order.

use std::{fs, time::Duration};

use svid_csi_proto::csi::v1::{
    GetPluginInfoRequest, ProbeRequest, identity_client::IdentityClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    floor::Floor,
    load::{Call, WIDTH, pods, publish_all, unpublish_all},
    plugin::{Node, Pod},
    process::{Memory, cpu_time},
    report::{Report, Row},
    rotation,
    sample::{Sample, millis},
};

/// How much of everything.
pub struct Sizes {
    /// Calls one at a time.
    calls: usize,
    /// Volumes that a node holds: few, what a node has, far more than that.
    held: [usize; 3],
    idle: Duration,
    /// How often a step is repeated of which the median counts.
    rounds: usize,
}

/// Nothing may become due, and no new CA active, while something else is measured.
const QUIET: [&str; 4] = ["--default-ttl", "24h", "--ca-propagation", "24h"];
/// So much that memory freed by a burst is counted as idle only once it has had time to settle.
const SETTLE: Duration = Duration::from_secs(2);

// === impl Sizes ===

impl Sizes {
    pub const FULL: Self =
        Self { calls: 1_000, held: [100, 1_000, 10_000], idle: Duration::from_secs(30), rounds: 3 };

    /// Enough to see that it works.
    pub const QUICK: Self =
        Self { calls: 100, held: [50, 100, 200], idle: Duration::from_secs(3), rounds: 1 };
}

pub async fn run(sizes: &Sizes, report: &mut Report) {
    one_at_a_time(sizes, report).await;
    held(sizes, report).await;
    renewals(sizes.held[1], report).await;
}

async fn one_at_a_time(sizes: &Sizes, report: &mut Report) {
    let node = Node::started(&QUIET).await;
    let warm = pods(0..100);
    publish_all(&node, &warm).await;
    let floor = Floor::like(&node.target(&warm[0]), node.path("floor"));
    unpublish_all(&node, &warm).await;

    // They take turns, so that a noisy neighbour troubles all, and none has the caches to itself.
    let mut client = node.csi().await;
    let mut identity = IdentityClient::new(node.channel().await.unwrap());
    let [mut raw_up, mut nothing] = [Sample::default(), Sample::default()];
    let [mut up, mut down] = [Sample::default(), Sample::default()];
    let [mut anew_up, mut anew_down] = [Sample::default(), Sample::default()];
    for n in 0..sizes.calls {
        let pod = &warm[n % warm.len()];
        let publish = Call::publish(&node, pod);
        let started = Instant::now();
        floor.publish(n);
        raw_up.add(started.elapsed());
        floor.unpublish(n);
        let started = Instant::now();
        let request = GetPluginInfoRequest {};
        identity.get_plugin_info(request).await.unwrap();
        nothing.add(started.elapsed());
        up.add(publish.clone().send(&mut client).await);
        down.add(Call::unpublish(&node, pod).send(&mut client).await);
        anew_up.add(publish.send_anew(&node).await);
        anew_down.add(Call::unpublish(&node, pod).send_anew(&node).await);
    }
    let ratio = |sample: &Sample, floor: &Sample| {
        sample.median().as_secs_f64() / floor.median().as_secs_f64()
    };
    let calls = up.len();
    report.add(percentiles(Row::new("floor: all of a publish but the service"), &raw_up));
    let what = "a call that does nothing: GetPluginInfo";
    report.add(percentiles(Row::new(what), &nothing));
    report.add(
        Row::new(format!("publish, one at a time ({calls} calls)"))
            .aimed("p50", millis(up.median()), "ms", 1.4)
            .figure("p90", millis(up.percentile(90)), "ms")
            .aimed("p99", millis(up.percentile(99)), "ms", 5.0)
            .aimed("p50 / floor", ratio(&up, &raw_up), "", 3.0),
    );
    let what = "publish, a connection for each call as kubelet";
    report.add(percentiles(Row::new(what), &anew_up));
    report.add(percentiles(Row::new("unpublish, one at a time"), &down));
    let what = "unpublish, a connection for each call as kubelet";
    report.add(percentiles(Row::new(what), &anew_down));
}

async fn held(sizes: &Sizes, report: &mut Report) {
    let [few, some, many] = sizes.held;
    let all = pods(0..many);
    let mut node = Node::started(&QUIET).await;
    publish_all(&node, &all[..few]).await;
    report.add(memory(&node, few, 20.0).await);
    unpublish_all(&node, &all[..few]).await;

    for round in 1..=sizes.rounds {
        let (wall, each) = publish_all(&node, &all[..some]).await;
        if round < sizes.rounds {
            unpublish_all(&node, &all[..some]).await;
            continue;
        }
        report.add(wide("publish", some, wall, &each, Some(1.0)));
    }
    report.add(memory(&node, some, 40.0).await);
    report.add(idle_cpu(&node, some, sizes.idle).await);
    report.add(restart(&mut node, &all[..some], sizes.rounds, Some(1.0)).await);

    let (wall, each) = publish_all(&node, &all[some..]).await;
    report.add(wide("publish the rest", many - some, wall, &each, None));
    report.add(memory(&node, many, 200.0).await);
    report.add(scrape(&node, many).await);
    report.add(restart(&mut node, &all, 1, None).await);
    let what = format!("new CA into the bundle of {many} volumes");
    report.add(Row::new(what).figure("", rotation::replace_ca(&node, &all).await, "volumes/s"));
    let (wall, each) = unpublish_all(&node, &all).await;
    report.add(wide("unpublish", many, wall, &each, None));
}

async fn renewals(volumes: usize, report: &mut Report) {
    let all = pods(0..volumes);
    let node = Node::started(&["--default-ttl", "10s"]).await;
    let rate = rotation::renew_all(&node, &all).await;
    let what = format!("renewals, {volumes} volumes due at once");
    report.add(Row::new(what).figure("", rate, "volumes/s"));
    unpublish_all(&node, &all).await;
}

fn percentiles(row: Row, sample: &Sample) -> Row {
    row.figure("p50", millis(sample.median()), "ms")
        .figure("p90", millis(sample.percentile(90)), "ms")
        .figure("p99", millis(sample.percentile(99)), "ms")
}

fn wide(what: &str, volumes: usize, wall: Duration, each: &Sample, aim: Option<f64>) -> Row {
    let row = Row::new(format!("{what}, {volumes} volumes, {WIDTH} at once"));
    let seconds = wall.as_secs_f64();
    let row = match aim {
        Some(most) => row.aimed("all", seconds, "s", most),
        None => row.figure("all", seconds, "s"),
    };
    row.figure("", volumes as f64 / seconds, "volumes/s").figure(
        "p99",
        millis(each.percentile(99)),
        "ms",
    )
}

async fn memory(node: &Node, volumes: usize, most: f64) -> Row {
    sleep(SETTLE).await;
    let memory = Memory::of(node.pid());
    Row::new(format!("memory, {volumes} volumes"))
        .aimed("resident", memory.total(), "MiB", most)
        .figure("of it anonymous", memory.anonymous, "MiB")
}

async fn idle_cpu(node: &Node, volumes: usize, window: Duration) -> Row {
    let (started, before) = (Instant::now(), cpu_time(node.pid()));
    sleep(window).await;
    let spent = cpu_time(node.pid()) - before;
    let share = 100.0 * spent.as_secs_f64() / started.elapsed().as_secs_f64();
    // The aim is about none.
    Row::new(format!("CPU while idle, {volumes} volumes")).aimed("", share, "% of a core", 0.1)
}

/// SIGKILL, a new process, and the time until it says that it is ready.
async fn restart(node: &mut Node, pods: &[Pod], rounds: usize, aim: Option<f64>) -> Row {
    let before = certificates(node, pods);
    let mut sample = Sample::default();
    for _ in 0..rounds {
        let started = Instant::now();
        node.kill().await;
        node.launch();
        while !is_ready(node).await {
            sleep(Duration::from_millis(1)).await;
        }
        sample.add(started.elapsed());
    }
    let after = certificates(node, pods);
    let reissued = before.iter().zip(&after).filter(|(old, new)| old != new);
    let reissued = reissued.count() as f64;
    sleep(SETTLE).await;
    let seconds = sample.median().as_secs_f64();
    let row = Row::new(format!("kill -9 until ready, {} volumes", pods.len()));
    let row = match aim {
        Some(most) => row.aimed("", seconds, "s", most),
        None => row.figure("", seconds, "s"),
    };
    row.aimed("reissued", reissued, "", 0.0).figure(
        "resident after it",
        Memory::of(node.pid()).total(),
        "MiB",
    )
}

fn certificates(node: &Node, pods: &[Pod]) -> Vec<Vec<u8>> {
    let read = |pod| fs::read(node.target(pod).join("tls.crt")).unwrap();
    pods.iter().map(read).collect()
}

async fn is_ready(node: &Node) -> bool {
    let Ok(channel) = node.channel().await else {
        return false;
    };
    let probe = IdentityClient::new(channel).probe(ProbeRequest {}).await;
    probe.is_ok_and(|answer| answer.into_inner().ready == Some(true))
}

async fn scrape(node: &Node, volumes: usize) -> Row {
    let log = node.log();
    let ready = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .rfind(|line| line["message"] == "ready");
    let address = ready.unwrap()["http"].as_str().unwrap().to_owned();
    let mut sample = Sample::default();
    for _ in 0..50 {
        let started = Instant::now();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        sample.add(started.elapsed());
    }
    percentiles(Row::new(format!("/metrics, {volumes} volumes")), &sample)
}
