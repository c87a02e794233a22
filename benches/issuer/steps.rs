//! What is measured, in order.

use std::time::{Duration, Instant};

use svid_csi::pki::{Authority, Csr, KeyAlgorithm, PrivateKey};
use svid_csi_proto::issuer::v1::{IssueJwtSvidRequest, IssueX509SvidRequest, Pod as PodName};

use crate::{
    bare::Bare,
    fleet::{
        Api, Controller, Fleet, Pod, Tokens,
        load::{self, Caller, Run, Wish},
    },
    report::{Report, Row},
    sample::{Sample, millis},
};

/// Nodes that have a connection, and calls under way on each.
const NODES: usize = 16;
const WIDE: usize = 4;
const PORT: u16 = 9871;
/// Rules as people write them: one looks at every container, one at the node.
const RULES: [&str; 2] = [
    "pod.spec.containers.all(c, c.image.startsWith('registry.example/'))",
    "node.taints.all(t, t.key != 'forbidden') && request.ttl <= 3600",
];

/// Everything that the steps share.
struct Stage {
    fleet: Fleet,
    tokens: Tokens,
    api: Api,
    serial: usize,
}

pub async fn x509(quick: bool, report: &mut Report) {
    let (few, many) = if quick { (200, 1_600) } else { (2_000, 32_000) };
    let mut stage = Stage::set().await;
    let bare = Bare::start().await;
    let mut controller = Controller::start(&stage.api.server, "x509", PORT, &[]);
    controller.ready().await;

    report.add(signature(few));
    let wishes = stage.x509(many.min(stage.fleet.pods));
    let mut empty = stage.callers(&wishes, bare.address).await;
    let mut ours = stage.callers(&wishes, controller.issuer).await;
    load::run(&empty, WIDE).await;
    load::run(&ours, WIDE).await;

    let one = |wishes: &[Vec<Wish>]| vec![wishes[0].iter().take(few).cloned().collect::<Vec<_>>()];
    let single = one(&wishes);
    set(&mut empty[..1], &single);
    set(&mut ours[..1], &single);
    report.add(latency(
        "floor: a call that is answered at once, one at a time",
        &load::run(&empty[..1], 1).await,
    ));
    report.add(latency_aimed("X.509-SVID, one at a time", &load::run(&ours[..1], 1).await));

    let floor = repeated(&mut empty, &wishes, many).await;
    report.add(rate(format!("floor: such calls, {} at once", NODES * WIDE), &floor));
    let row = format!("X.509-SVIDs, {} at once, tokens seen before", NODES * WIDE);
    let (run, cpu) = with_cpu(&controller, repeated(&mut ours, &wishes, many)).await;
    report.add(rate_aimed(row, &run, 5_500.0).figure("controller", micros(cpu, &run), "µs CPU"));
    report.add(Row::new("… of the floor").figure("", run.rate() / floor.rate(), ""));

    let fresh = stage.x509(many.min(stage.fleet.pods));
    let row = "X.509-SVIDs, every pod's token for the first time".to_owned();
    set(&mut ours, &fresh);
    let (run, cpu) = with_cpu(&controller, load::run(&ours, WIDE)).await;
    report.add(rate_aimed(row, &run, 5_500.0).figure("controller", micros(cpu, &run), "µs CPU"));

    stage.api.set_rules(&RULES);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let run = repeated(&mut ours, &wishes, many / 2).await;
    report.add(rate("X.509-SVIDs, a policy with two CEL rules".to_owned(), &run));
    stage.api.set_rules(&[]);
    tokio::time::sleep(Duration::from_secs(1)).await;

    println!("measured: {} lines of audit", controller.audited());
}

pub async fn jwt(quick: bool, report: &mut Report) {
    let many = if quick { 1_600 } else { 32_000 };
    let mut stage = Stage::set().await;
    let jwt = stage.jwt(many.min(stage.fleet.pods));
    for (algorithm, many, aim) in [("es256", many, Some(8_000.0)), ("rs256", many / 4, None)] {
        stage.api = Api::start(&stage.fleet, &stage.tokens).await;
        let args = ["--jwt-key-algorithm", algorithm];
        let mut controller = Controller::start(&stage.api.server, algorithm, PORT, &args);
        controller.ready().await;
        let mut ours = stage.callers(&jwt, controller.issuer).await;
        load::run(&ours, WIDE).await;
        let (run, cpu) = with_cpu(&controller, repeated(&mut ours, &jwt, many)).await;
        let row = format!("fresh {} JWT-SVIDs", algorithm.to_uppercase());
        let row = match aim {
            Some(least) => rate_aimed(row, &run, least),
            None => rate(row, &run),
        };
        report.add(row.figure("controller", micros(cpu, &run), "µs CPU"));
    }
}

// === impl Stage ===

impl Stage {
    async fn set() -> Self {
        let (fleet, tokens) = (Fleet::new(NODES, 3_200), Tokens::new());
        let api = Api::start(&fleet, &tokens).await;
        Self { fleet, tokens, api, serial: 0 }
    }

    /// For each node, what its pods want, each with a token that nobody has seen.
    fn x509(&mut self, count: usize) -> Vec<Vec<Wish>> {
        self.wishes(count, |pod, token| {
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let csr = Csr::create(&key, &id(pod).parse().unwrap()).unwrap();
            Wish::X509(IssueX509SvidRequest {
                pod_token: token,
                pod: Some(name(pod)),
                csr: csr.der().to_vec().into(),
                volume_id: format!("csi-{}", pod.uid),
                ..Default::default()
            })
        })
    }

    fn jwt(&mut self, count: usize) -> Vec<Vec<Wish>> {
        self.wishes(count, |pod, token| {
            Wish::Jwt(IssueJwtSvidRequest {
                pod_token: token,
                pod: Some(name(pod)),
                spiffe_id: id(pod),
                audience: vec!["api.example.org".to_owned()],
                ttl_seconds: 300,
                volume_id: format!("csi-{}", pod.uid),
            })
        })
    }

    fn wishes(&mut self, count: usize, wish: impl Fn(&Pod, String) -> Wish) -> Vec<Vec<Wish>> {
        self.serial += 1;
        let mut all = vec![Vec::new(); NODES];
        for n in 0..count {
            let pod = self.fleet.pod(n);
            all[pod.node].push(wish(&pod, self.tokens.of(&pod, self.serial)));
        }
        all
    }

    async fn callers(&self, wishes: &[Vec<Wish>], address: std::net::SocketAddr) -> Vec<Caller> {
        let mut callers = Vec::new();
        for (node, wishes) in wishes.iter().enumerate() {
            let token = self.tokens.of(&self.fleet.driver(node), 0);
            callers.push(Caller::connect(address, &token, wishes.clone()).await);
        }
        callers
    }
}

fn set(callers: &mut [Caller], wishes: &[Vec<Wish>]) {
    for (caller, wishes) in callers.iter_mut().zip(wishes) {
        caller.set(wishes.clone());
    }
}

/// The wishes again and again, so many in all.
async fn repeated(callers: &mut [Caller], wishes: &[Vec<Wish>], count: usize) -> Run {
    let each = count / callers.len();
    let longer: Vec<Vec<Wish>> =
        wishes.iter().map(|wishes| wishes.iter().cycle().take(each).cloned().collect()).collect();
    set(callers, &longer);
    load::run(callers, WIDE).await
}

async fn with_cpu(controller: &Controller, run: impl Future<Output = Run>) -> (Run, Duration) {
    let before = controller.cpu();
    let run = run.await;
    (run, controller.cpu() - before)
}

/// What the mathematics take: a CSR's signature checked, a certificate signed.
fn signature(count: usize) -> Row {
    let authority = Authority::create(
        &"example.org".parse().unwrap(),
        KeyAlgorithm::EcdsaP256,
        Duration::from_hours(24),
        std::time::SystemTime::now(),
    )
    .unwrap();
    let id = "spiffe://example.org/ns/shop/sa/web".parse().unwrap();
    let csr = Csr::create(&PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap(), &id).unwrap();
    let began = Instant::now();
    for _ in 0..count {
        let csr = Csr::parse(csr.der()).unwrap();
        let now = std::time::SystemTime::now();
        authority.issue(csr.public_key(), &id, &[], Duration::from_hours(1), now).unwrap();
    }
    let each = began.elapsed() / u32::try_from(count).unwrap();
    Row::new("floor: a CSR checked and a certificate signed, one thread")
        .figure("", 1.0 / each.as_secs_f64(), "/s")
        .figure("each", each.as_secs_f64() * 1e6, "µs")
}

fn id(pod: &Pod) -> String {
    format!("spiffe://example.org/ns/{}/sa/{}", pod.namespace, pod.account)
}

fn name(pod: &Pod) -> PodName {
    let Pod { namespace, name, uid, .. } = pod.clone();
    PodName { namespace, name, uid }
}

fn micros(cpu: Duration, run: &Run) -> f64 {
    cpu.as_secs_f64() * 1e6 / run.each.len() as f64
}

fn percentiles(row: Row, each: &Sample) -> Row {
    row.figure("p50", millis(each.median()), "ms").figure("p99", millis(each.percentile(99)), "ms")
}

fn latency(what: &str, run: &Run) -> Row {
    percentiles(Row::new(what), &run.each)
}

fn latency_aimed(what: &str, run: &Run) -> Row {
    percentiles(Row::new(what), &run.each)
}

fn rate(what: String, run: &Run) -> Row {
    percentiles(Row::new(what).figure("", run.rate(), "/s"), &run.each)
}

fn rate_aimed(what: String, run: &Run, least: f64) -> Row {
    percentiles(Row::new(what).at_least("", run.rate(), "/s", least), &run.each)
}
