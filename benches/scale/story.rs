//! What happens to the cluster, in order.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    crowd::Crowd,
    fleet::{Api, Controller, Fleet, Tokens},
    report::{Report, Row},
};

const PORTS: [u16; 2] = [9861, 9865];
const ARGS: [&str; 4] = ["--ca-propagation", "10s", "--log-level", "warn"];

pub async fn run(quick: bool, report: &mut Report) {
    let (nodes, pods, faster, time) =
        if quick { (100, 3_000, 240, 80) } else { (5_000, 150_000, 20, 240) };
    let (fleet, tokens) = (Fleet::new(nodes, pods), Tokens::new());
    let api = Api::start(&fleet, &tokens).await;
    let store = api.server.store.clone();
    let start = |n: usize| Controller::start(&api.server, &format!("scale-{n}"), PORTS[n], &ARGS);
    let mut leader = start(0);
    leader.ready().await;
    let mut other = start(1);
    other.ready().await;
    println!("measured: both replicas are ready; making {pods} tokens");
    let addresses = vec![leader.issuer, other.issuer];
    let crowd = Rc::new(Crowd::new(&fleet, &tokens, addresses, faster));

    let cpu = leader.cpu() + other.cpu();
    let took = crowd.first().await;
    let cpu = leader.cpu() + other.cpu() - cpu;
    let row = crowd.seconds.borrow().row(
        &format!("the first SVIDs of {pods} pods on {nodes} nodes"),
        Duration::ZERO,
        took,
    );
    let each = cpu.as_secs_f64() * 1e6 / pods as f64;
    report.add(row.figure("all after", took.as_secs_f64(), "s").figure("CPU", each, "µs each"));
    report.add(memory("each replica, every node connected", [&leader, &other]));

    // Whoever starts together is renewed together, the first time.
    crowd.renew(Duration::from_hours(1) / faster, async {}).await;

    // A quarter of the time in peace, one for each event.
    let quarter = Duration::from_secs(time / 4);
    let (reads, writes) = (store.reads(""), store.writes("").len());
    let cpu = leader.cpu() + other.cpu();
    crowd.renew(quarter, async {}).await;
    let calls = store.reads("pods") + store.reads("serviceaccounts") + store.reads("nodes");
    let renewed = crowd.seconds.borrow().count();
    let cpu = (leader.cpu() + other.cpu() - cpu).as_secs_f64();
    let name = |what: &str| format!("renewals, {faster} times faster: {what}");
    report.add(crowd.seconds.borrow().row(&name("in peace"), Duration::ZERO, quarter));
    report.add(
        Row::new("… what they cost")
            .figure("CPU of both replicas", cpu * 1e6 / renewed as f64, "µs each")
            .figure("reads of pods, nodes, ServiceAccounts", calls as f64, "in all")
            .figure("reads", (store.reads("") - reads) as f64, "in all")
            .figure(
                "writes (Lease, CA, status)",
                (store.writes("").len() - writes) as f64,
                "in all",
            ),
    );

    leader.kill();
    crowd.renew(quarter, async {}).await;
    report.add(crowd.seconds.borrow().row(&name("the leader is killed"), Duration::ZERO, quarter));
    let retries = crowd.seconds.borrow().retries;
    report.add(Row::new("… calls that were made again").figure("", retries as f64, ""));

    let mut leader = start(0);
    let came = Instant::now();
    crowd.renew(quarter, async {}).await;
    report.add(crowd.seconds.borrow().row(&name("a replica starts"), Duration::ZERO, quarter));
    let ready = leader.ready().await;
    println!("measured: the replica was ready within {:?} ({ready:?})", came.elapsed());

    crowd.issuers.borrow_mut().clear();
    other.rotate_ca(&api.server);
    crowd.renew(quarter, async {}).await;
    report.add(crowd.seconds.borrow().row(&name("the CA is replaced"), Duration::ZERO, quarter));
    let issuers = crowd.issuers.borrow();
    let row = issuers
        .values()
        .enumerate()
        .fold(Row::new("… SVIDs under each CA"), |row, (n, count)| {
            row.figure(["one", "another", "a third"][n.min(2)], *count as f64, "")
        });
    report.add(row);
    report.add(memory("each replica, at the end", [&leader, &other]));
}

fn memory(what: &str, replicas: [&Controller; 2]) -> Row {
    let [one, two] = replicas.map(|replica| replica.resident().0);
    Row::new(what).figure("resident", one, "MiB").figure("resident", two, "MiB")
}
