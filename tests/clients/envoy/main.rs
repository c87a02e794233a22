//! Two Envoys that nobody here built, in mutual TLS by what their volumes' sockets give them:
//! through rotations, a new CA and the plugin's SIGKILL, without a failed request.
//!
//! Both run as in pods, with the very file that docs/workload-api.md shows and its counterpart, in a
//! network namespace of the test's own because those name ports.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "tests are nobody's interface, and share a module with others"
)]

mod http;
mod origin;
#[path = "../../it/plugin.rs"]
mod plugin;
mod proxy;
mod traffic;

use std::{
    collections::BTreeSet,
    env, fs,
    process::{Command, ExitCode},
    time::{Duration, Instant, SystemTime},
};

use origin::Origin;
use plugin::{Node, Pod, TRUST_DOMAIN, eventually, on_a_node};
use proxy::{CLIENT, Proxy, SERVER};
use svid_csi::pki::{Authority, KeyAlgorithm, X509Svid};
use tokio::time::sleep;
use traffic::{Traffic, call};

/// Set in the network namespace.
const INSIDE: &str = "SVID_CSI_TEST_NETWORK";
/// For a stage; a busy machine needs some of it.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the plugin is away: shorter than any SVID has left.
const AWAY: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if env::var_os(INSIDE).is_none() {
        let script = "ip link set lo up && exec \"$0\"";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).arg(env::current_exe().unwrap());
        let status = command.env(INSIDE, "1").status().unwrap();
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let document = include_str!("../../../docs/workload-api.md");
    assert!(document.contains(include_str!("server.yaml")), "it does not show server.yaml");
    on_a_node(run);
    ExitCode::SUCCESS
}

async fn run() {
    let mut node = Node::started(&["--ca-propagation", "3s"]).await;
    let [backend, frontend, stranger] = [pod(1, "backend"), pod(2, "frontend"), pod(3, "stranger")];
    for pod in [&backend, &frontend, &stranger] {
        node.publish(pod).await.unwrap();
    }
    let origin = Origin::start().await;
    let mut server = Proxy::start(&node, &SERVER, &backend).await;
    let mut client = Proxy::start(&node, &CLIENT, &frontend).await;
    let began = Instant::now();
    let say = |what: &str| println!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());

    let first = eventually("the first call", async || call().await.ok()).await;
    assert_eq!(first, frontend.id(), "the application learns who calls");
    let traffic = Traffic::start(frontend.id());
    // A handshake shows that a certificate is not only there.
    let mut seen = Seen::default();
    seen.until(&node, [&server, &client], &origin, "three rotations", |seen| {
        seen.server.len() > 3 && seen.client.len() > 3 && seen.callers > 3
    })
    .await;
    say("both Envoys have taken three rotations");

    let new = replace_ca(&node);
    let issuer = new.certificate().subject();
    for (pod, proxy) in [(&backend, &server), (&frontend, &client)] {
        eventually_long("an SVID of the new CA", async || {
            let svid = svid(&node, pod);
            let in_use = proxy.serial().await? == proxy::serial(svid.serial_hex());
            (svid.leaf().issuer() == issuer && in_use).then_some(())
        })
        .await;
    }
    let callers = origin.callers();
    eventually_long("a handshake under it", async || (origin.callers() > callers).then_some(()))
        .await;
    say("both Envoys present SVIDs of the new CA");

    node.kill().await;
    sleep(AWAY).await;
    assert!(server.runs() && client.runs());
    node.start().await;
    let mut after = Seen::default();
    after
        .until(&node, [&server, &client], &origin, "rotations after the crash", |seen| {
            seen.server.len() > 2 && seen.client.len() > 2
        })
        .await;
    say("the plugin was killed, and both Envoys follow the new one");

    let calls = traffic.stop().await;
    assert!(server.runs() && client.runs());
    say(&format!(
        "{calls} calls, none failed; the application saw {} client certificates",
        origin.callers()
    ));

    refusals(&node, server, client, [&backend, &frontend, &stranger], &origin).await;
    say("a wrong identity is refused on either side");
    assert!(!node.log().contains("refused the secrets"), "an Envoy refused a secret");
    println!("envoy: passed");
}

/// Who has not the SPIFFE ID that the other side wants gets nowhere.
async fn refusals(
    node: &Node,
    server: Proxy,
    client: Proxy,
    [backend, frontend, stranger]: [&Pod; 3],
    origin: &Origin,
) {
    drop(client);
    let wrong = Proxy::start(node, &CLIENT, stranger).await;
    let served = origin.served();
    let refused = call().await.unwrap_err();
    assert!(refused.starts_with("503"), "{refused}");
    assert!(server.stat("listener.0.0.0.0_8443.ssl.fail_verify_san").await > 0);
    drop((wrong, server));

    let client = Proxy::start(node, &CLIENT, frontend).await;
    let wrong = Proxy::start(node, &SERVER, stranger).await;
    let refused = call().await.unwrap_err();
    assert!(refused.starts_with("503"), "{refused}");
    assert!(client.stat("cluster.backend.ssl.fail_verify_san").await > 0);
    assert_eq!(origin.served(), served, "a refused call came through");
    drop(wrong);

    let _server = Proxy::start(node, &SERVER, backend).await;
    eventually("the right ones meet again", async || call().await.ok()).await;
}

/// What has been seen to be in use.
#[derive(Debug, Default)]
struct Seen {
    server: BTreeSet<String>,
    client: BTreeSet<String>,
    callers: usize,
}

// === impl Seen ===

impl Seen {
    async fn until(
        &mut self,
        node: &Node,
        [server, client]: [&Proxy; 2],
        origin: &Origin,
        what: &str,
        enough: impl Fn(&Self) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(self) {
            self.server.extend(server.serial().await);
            self.client.extend(client.serial().await);
            self.callers = origin.callers();
            assert!(Instant::now() < deadline, "never: {what}: {self:?}\n{}", node.log());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn eventually_long(what: &str, mut check: impl AsyncFnMut() -> Option<()>) {
    let deadline = Instant::now() + PATIENCE;
    while check().await.is_none() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

fn pod(n: usize, name: &str) -> Pod {
    Pod { service_account: name.to_owned(), ..Pod::new(n) }.with("ttl", "15s")
}

fn svid(node: &Node, pod: &Pod) -> X509Svid {
    let text = fs::read_to_string(node.target(pod).join("tls.crt")).unwrap();
    X509Svid::from_pem(&text).unwrap()
}

/// The certificate goes first: in between, the plugin sees a pair that doesn't match.
fn replace_ca(node: &Node) -> Authority {
    #[expect(clippy::disallowed_methods, reason = "a CA is made now")]
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let domain = TRUST_DOMAIN.parse().unwrap();
    let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
    fs::write(node.ca_dir().join("tls.crt"), ca.certificate_pem()).unwrap();
    fs::write(node.ca_dir().join("tls.key"), ca.key_pem().as_bytes()).unwrap();
    ca
}
