//! Many volumes with two streams each: what they cost, how fast all hear of a change, and when all
//! sockets answer after a crash.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    QUIET, Sizes,
    client::{Client, socket},
    load::{pods, publish_all},
    plugin::{Node, Pod, eventually},
    process::{Memory, cpu_time},
    report::{Report, Row},
    rotation,
};

/// So much that memory freed by a burst has had time to settle.
const SETTLE: Duration = Duration::from_secs(2);

/// When each stream's newest message came, and how many there were.
type Heard = Arc<Mutex<Vec<(usize, Instant)>>>;

pub async fn run(sizes: &Sizes, report: &mut Report) {
    let mut node = Node::started(&QUIET).await;
    let all = pods(0..sizes.volumes);
    publish_all(&node, &all).await;
    sleep(SETTLE).await;
    let before = Memory::of(node.pid());
    let (heard, streams) = hold(&node, &all).await;
    let held = 2 * all.len();
    sleep(SETTLE).await;
    let after = Memory::of(node.pid());
    let each = (after.total() - before.total()) * 1024.0 / held as f64;
    report.add(
        Row::new(format!("{held} streams held, {} volumes", all.len()))
            .aimed("each", each, "KiB", 60.0)
            .figure("resident", after.total(), "MiB")
            .figure("resident without them", before.total(), "MiB"),
    );
    let (started, spent) = (Instant::now(), cpu_time(node.pid()));
    sleep(sizes.idle).await;
    let spent = cpu_time(node.pid()) - spent;
    let share = 100.0 * spent.as_secs_f64() / started.elapsed().as_secs_f64();
    let what = format!("CPU while idle, {held} streams");
    report.add(Row::new(what).aimed("", share, "% of a core", 0.1));

    report.add(fan_out(&node, &all, &heard).await);
    drop(streams);
    report.add(restart(&mut node, &all).await);
}

/// Opens two streams in each volume, over one connection, and listens.
async fn hold(node: &Node, pods: &[Pod]) -> (Heard, JoinSet<()>) {
    let heard: Heard = Arc::new(Mutex::new(vec![(0, Instant::now()); 2 * pods.len()]));
    let mut streams = JoinSet::new();
    for (n, pod) in pods.iter().enumerate() {
        let mut client = Client::connect(&socket(node, pod)).await.unwrap();
        let mut svids = client.svids().await.unwrap();
        let mut bundles = client.bundles().await.unwrap();
        let (ours, theirs) = (heard.clone(), heard.clone());
        streams.spawn(async move {
            while let Ok(Some(_)) = svids.message().await {
                hear(&ours, 2 * n);
            }
        });
        streams.spawn(async move {
            while let Ok(Some(_)) = bundles.message().await {
                hear(&theirs, 2 * n + 1);
            }
        });
    }
    let first = async || heard.lock().unwrap().iter().all(|(count, _)| *count > 0).then_some(());
    eventually("every stream has its first message", first).await;
    (heard, streams)
}

fn hear(heard: &Heard, stream: usize) {
    let mut heard = heard.lock().unwrap();
    heard[stream] = (heard[stream].0 + 1, Instant::now());
}

/// From the first stream that hears of a new CA to the last.
async fn fan_out(node: &Node, pods: &[Pod], heard: &Heard) -> Row {
    let before = heard.lock().unwrap().clone();
    rotation::replace_ca(node, pods).await;
    let told = async || {
        let heard = heard.lock().unwrap();
        let all = heard.iter().zip(&before).all(|((now, _), (before, _))| now > before);
        all.then_some(())
    };
    eventually("every stream has the new CA", told).await;
    sleep(SETTLE).await;
    let heard = heard.lock().unwrap();
    let times = || heard.iter().map(|(_, at)| *at);
    let spread = times().max().unwrap() - times().min().unwrap();
    let messages: usize = heard.iter().zip(&before).map(|(now, before)| now.0 - before.0).sum();
    Row::new(format!("a new CA told to {} streams, first to last", heard.len()))
        .aimed("", spread.as_secs_f64() * 1e3, "ms", 200.0)
        .figure("messages each", messages as f64 / heard.len() as f64, "")
}

/// SIGKILL, a new process, and the time until every socket has answered.
async fn restart(node: &mut Node, pods: &[Pod]) -> Row {
    let before = svids(node, pods).await;
    let started = Instant::now();
    svids(node, pods).await;
    let asking = started.elapsed();
    let started = Instant::now();
    node.kill().await;
    node.launch();
    let after = svids(node, pods).await;
    let took = started.elapsed();
    let reissued = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    Row::new(format!("kill -9 until all {} sockets have answered", pods.len()))
        .aimed("", took.as_secs_f64(), "s", 1.0)
        .figure("asking them all, without a crash", asking.as_secs_f64(), "s")
        .aimed("reissued", reissued as f64, "", 0.0)
}

/// What each socket answers, one after the other, on new connections.
async fn svids(node: &Node, pods: &[Pod]) -> Vec<Bytes> {
    let mut svids = Vec::new();
    for pod in pods {
        let socket = socket(node, pod);
        // An old socket refuses until the new one is in its place.
        let answer = loop {
            if let Ok(mut client) = Client::connect(&socket).await
                && let Ok(answer) = client.svid().await
            {
                break answer;
            }
            sleep(Duration::from_millis(1)).await;
        };
        svids.push(answer.svids[0].x509_svid.clone());
    }
    svids
}
