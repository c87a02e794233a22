//! What is measured, in order.

use std::time::{Duration, Instant};

use crate::{
    floor::Floor,
    ours::Ours,
    report::{Report, Row},
    sample::{Sample, millis},
    stage::Given,
    tools::Tools,
};

/// As many as a node has under way.
const WIDE: usize = 32;

pub async fn run(quick: bool, report: &mut Report) {
    let single = if quick { 50 } else { 300 };
    let Given { pods, admin } = Given::from_environment();
    let tools = Tools::of(&admin);
    let floor = Floor::new(&admin).await;
    let ours = Ours::new().await;
    ours.run("warm", &pods[..WIDE], WIDE).await;
    floor.run("warm", WIDE, WIDE).await;

    let (_, each) = floor.run("single", single, 1).await;
    report.add(latency("4 bare writes, one after another", &each));
    let (_, each) = ours.run("single", &pods[..single], 1).await;
    report.add(latency_aimed("an issuance, one after another", &each));

    // In the order A B B A neither has the warmer machine.
    let half = pods.len() / 2;
    let (first, second) = pods.split_at(half);
    let mut bare = Duration::ZERO;
    let mut whole = Duration::ZERO;
    let mut each = Vec::new();
    bare += floor.run("first", half, WIDE).await.0;
    let before = settled(&tools).await;
    for (label, half) in [("first", first), ("second", second)] {
        let (took, sample) = ours.run(label, half, WIDE).await;
        whole += took;
        each.push(sample);
    }
    let after = settled(&tools).await;
    bare += floor.run("second", pods.len() - half, WIDE).await.0;

    let count = pods.len() as f64;
    let (floor_rate, rate) = (count / bare.as_secs_f64(), count / whole.as_secs_f64());
    report.add(
        Row::new(format!("{count} × 4 bare writes, {WIDE} at once")).figure("", floor_rate, "/s"),
    );
    let each: Sample = each.iter().flat_map(Sample::all).collect();
    report.add(
        Row::new(format!("{count} issuances, {WIDE} at once"))
            .at_least("", rate, "/s", 150.0)
            .figure("p50", millis(each.median()), "ms")
            .figure("p99", millis(each.percentile(99)), "ms")
            .aimed("API writes each", (after - before) / count, "", 4.0),
    );
    report.add(Row::new("of the API server's own limit").at_least("", rate / floor_rate, "", 0.7));
}

/// Writes of requests that the API server has taken.
fn writes(tools: &Tools) -> f64 {
    let metrics = tools.kubectl(&["get", "--raw", "/metrics"], "");
    let is_write = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"certificatesigningrequests\"")
            && ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
    };
    let count = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    metrics.lines().filter(is_write).map(count).sum()
}

/// The same once every request has been deleted: nobody waits for that.
async fn settled(tools: &Tools) -> f64 {
    let began = Instant::now();
    loop {
        let left = tools.get(&["csr"])["items"].as_array().unwrap().len();
        if left == 0 {
            return writes(tools);
        }
        assert!(began.elapsed() < Duration::from_mins(2), "{left} requests are left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn latency(what: &str, each: &Sample) -> Row {
    Row::new(what).figure("p50", millis(each.median()), "ms").figure(
        "p99",
        millis(each.percentile(99)),
        "ms",
    )
}

fn latency_aimed(what: &str, each: &Sample) -> Row {
    Row::new(what).aimed("p50", millis(each.median()), "ms", 30.0).figure(
        "p99",
        millis(each.percentile(99)),
        "ms",
    )
}
