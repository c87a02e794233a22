//! FetchX509SVID's first message, beside the same from a bare server.

use tokio::time::Instant;

use crate::{
    QUIET, Sizes,
    bare::Bare,
    client::{Client, WIDTH, socket, wide},
    plugin::{Node, Pod},
    report::{Report, Row},
    sample::{Sample, millis},
};

pub async fn run(sizes: &Sizes, report: &mut Report) {
    let node = Node::started(&QUIET).await;
    let pod = Pod::new(1);
    node.publish(&pod).await.unwrap();
    let ours = socket(&node, &pod);
    let mut client = Client::connect(&ours).await.unwrap();
    let theirs = node.path("bare.sock");
    let answer = client.svid().await.unwrap();
    let bare = Bare::start(&theirs, &answer, &client.token("a".to_owned()).await).await;
    let mut floor = Client::connect(&theirs).await.unwrap();

    // They take turns, so that a noisy neighbour troubles all.
    let [mut warm, mut warm_floor] = [Sample::default(), Sample::default()];
    let [mut anew, mut anew_floor] = [Sample::default(), Sample::default()];
    for _ in 0..sizes.calls {
        for (client, socket, warm, anew) in [
            (&mut client, &ours, &mut warm, &mut anew),
            (&mut floor, &theirs, &mut warm_floor, &mut anew_floor),
        ] {
            let started = Instant::now();
            client.svid().await.unwrap();
            warm.add(started.elapsed());
            let started = Instant::now();
            Client::connect(socket).await.unwrap().svid().await.unwrap();
            anew.add(started.elapsed());
        }
    }
    let svid = |mut client: Client, _| async move { drop(client.svid().await.unwrap()) };
    let (rate, each) = wide(&ours, sizes.wide, svid).await;
    let (floor_rate, _) = wide(&theirs, sizes.wide, svid).await;
    drop(bare);

    let ratio = |sample: &Sample, floor: &Sample| {
        sample.median().as_secs_f64() / floor.median().as_secs_f64()
    };
    let floor_row = |what: &str, sample: &Sample| {
        Row::new(what).figure("p50", millis(sample.median()), "ms").figure(
            "p99",
            millis(sample.percentile(99)),
            "ms",
        )
    };
    report.add(floor_row("floor: the same message from a bare server", &warm_floor));
    report.add(
        Row::new(format!("FetchX509SVID, first message, warm ({} calls)", sizes.calls))
            .aimed("p50", millis(warm.median()), "ms", 0.3)
            .aimed("p99", millis(warm.percentile(99)), "ms", 1.0)
            .figure("p50 / floor", ratio(&warm, &warm_floor), ""),
    );
    report.add(floor_row("floor: on a new connection", &anew_floor));
    report.add(
        Row::new("FetchX509SVID, first message, new connection")
            .figure("p50", millis(anew.median()), "ms")
            .figure("p99", millis(anew.percentile(99)), "ms")
            .figure("p50 / floor", ratio(&anew, &anew_floor), ""),
    );
    report.add(Row::new(format!("floor: {WIDTH} at once")).figure("", floor_rate, "/s"));
    report.add(
        Row::new(format!("FetchX509SVID, first message, {WIDTH} at once"))
            .at_least("", rate, "/s", 12_000.0)
            .figure("p99", millis(each.percentile(99)), "ms")
            .figure("of the floor's rate", rate / floor_rate, ""),
    );
}
