//! Clients that nobody here wrote, at the sockets of the real plugin (docs/clients.md).
//!
//! Each runs as in a pod, follows rotations and a new CA, and survives the plugin's SIGKILL. They
//! say themselves what they see; it counts only as far as their volumes' files held it.

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

mod client;
mod curl;
mod event;
mod judge;
#[path = "../it/plugin.rs"]
mod plugin;
mod programs;
mod spec;
mod table;
mod volumes;

use std::{
    env, fs,
    time::{Duration, Instant, SystemTime},
};

use client::Client;
use event::Event;
use judge::{Stage, faults, lacks};
use plugin::{Node, TRUST_DOMAIN, on_a_node};
use programs::Programs;
use spec::{CALLER, FOLLOWERS, SERVER, Spec};
use svid_csi::{
    jose::{JwtKey, JwtKeyAlgorithm},
    pki::{Authority, KeyAlgorithm},
};
use tokio::time::sleep;
use volumes::Volumes;

/// For a stage; a busy machine needs some of it.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the plugin is away: longer than clients need to see it, shorter than any SVID of the
/// callers has left.
const AWAY: Duration = Duration::from_secs(2);
/// By then every client has tried again.
const GRACE: Duration = Duration::from_secs(10);

fn main() {
    let programs = Programs::build();
    on_a_node(async || run(&programs).await);
    let (path, text) = table::document();
    let current = table::with_table(&text);
    if env::var_os("UPDATE").is_some() {
        fs::write(path, current).unwrap();
    } else {
        assert!(text == current, "docs/clients.md is not what was run: UPDATE=1 make clients");
    }
    println!("clients: {} passed, 0 failed", FOLLOWERS.len() + 2);
}

/// All clients at once, each in its volume.
struct Scene {
    node: Node,
    volumes: Volumes,
    clients: Vec<Client>,
    began: Instant,
}

async fn run(programs: &Programs) {
    let mut node = Node::new(&["--ca-propagation", "3s", "--jwt-ttl", "10s"]);
    node.start().await;
    let specs = FOLLOWERS.iter().chain([&SERVER, &CALLER]);
    let pods: Vec<_> = specs.zip(0..).map(|(spec, n)| (*spec, Client::pod(spec, n))).collect();
    for (_, pod) in &pods {
        node.publish(pod).await.unwrap();
    }
    let volumes = Volumes::watch(pods.iter().map(|(_, pod)| node.target(pod)).collect());
    let mut scene = Scene { node, volumes, clients: Vec::new(), began: Instant::now() };
    for (spec, pod) in pods {
        let more = scene.more(&spec).await;
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        let programs = programs.of(spec.directory);
        scene.clients.push(Client::start(&scene.node, spec, pod, programs, &more));
    }
    scene.reach("every client has begun", Stage::Begun).await;
    let curl = scene.named("grpcurl");
    let volume = scene.node.target(&curl.pod);
    curl::explore(&volume, programs.of("grpcurl"), &curl.pod.id()).await.unwrap();
    scene.say("grpcurl lists, describes and calls everything it finds");

    replace_keys(&scene.node);
    scene.reach("three rotations, a new CA and a new JWT key", Stage::Followed).await;
    let mut away = vec![scene.without_plugin("killed", async |node| node.kill().await).await];
    let ended = async |node: &mut Node| assert_eq!(node.terminate().await, Some(0));
    away.push(scene.without_plugin("stopped", ended).await);
    curl::explore(&volume, programs.of("grpcurl"), &scene.named("grpcurl").pod.id()).await.unwrap();
    scene.judge(&away);
    for n in 0..scene.clients.len() {
        let pod = scene.clients[n].pod.clone();
        scene.node.unpublish(&pod).await.unwrap();
    }
    assert!(scene.node.mounts().is_empty(), "no client holds a volume back");
}

// === impl Scene ===

impl Scene {
    fn say(&self, line: &str) {
        println!("{:>7.1} s  {line}", self.began.elapsed().as_secs_f64());
    }

    fn named(&self, name: &str) -> &Client {
        self.clients.iter().find(|client| client.spec.name == name).unwrap()
    }

    /// What a client must be told on top of its command: who may call, and where.
    async fn more(&self, spec: &Spec) -> Vec<String> {
        let id = |name: &str| format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}");
        if spec.name == SERVER.name {
            return vec![id(CALLER.name)];
        }
        if spec.name != CALLER.name {
            return Vec::new();
        }
        let listening = || {
            self.named(SERVER.name).last(|event| match event {
                Event::Listening { http, grpc } => Some((http.clone(), grpc.clone())),
                _ => None,
            })
        };
        let (http, grpc) = plugin::eventually("the server listens", async || listening()).await;
        vec![id(SERVER.name), id("stranger"), http, grpc]
    }

    /// Waits until every client has come so far.
    async fn reach(&mut self, what: &str, stage: Stage) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut lacking = Vec::new();
            for client in &mut self.clients {
                let ends = client.spec.one_shot;
                assert!(ends || client.runs(), "{} has ended:\n{}", client.spec.name, said(client));
                if ends && matches!(stage, Stage::Back(..)) {
                    continue;
                }
                let held = self.volumes.held(&self.node.target(&client.pod));
                if let Some(lack) = lacks(client, &held, stage) {
                    lacking.push(format!("{}: {lack}\n{}", client.spec.name, said(client)));
                }
            }
            if lacking.is_empty() {
                return self.say(what);
            }
            assert!(Instant::now() < deadline, "never: {what}\n{}", lacking.join("\n"));
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The plugin goes, is away for some time, and another comes: from when to when errors are
    /// excused.
    async fn without_plugin(
        &mut self,
        how: &str,
        end: impl AsyncFnOnce(&mut Node),
    ) -> [Instant; 2] {
        let gone = Instant::now();
        end(&mut self.node).await;
        let before = self.calls();
        sleep(AWAY).await;
        let after = self.calls();
        assert!(before.iter().zip(&after).all(|(b, a)| a > b), "calls stop: {before:?}, {after:?}");
        self.node.start().await;
        let back = Instant::now();
        self.say(&format!("the plugin was {how} and is back"));
        // A second is the grain of a JWT's times.
        let at = unix_now() - 1;
        self.reach("every client has what only the new plugin gives", Stage::Back(back, at)).await;
        [gone, back + GRACE]
    }

    /// How many calls of each kind the caller has made.
    fn calls(&self) -> Vec<u64> {
        let made = self.named(CALLER.name).last(|event| match event {
            Event::Calls { made } => Some(made.values().copied().collect::<Vec<_>>()),
            _ => None,
        });
        made.filter(|made| made.len() == 5).expect("five kinds of calls")
    }

    fn judge(&self, away: &[[Instant; 2]]) {
        let server = self.named(SERVER.name);
        let (id, served) = (server.pod.id(), self.volumes.held(&self.node.target(&server.pod)));
        let mut all = Vec::new();
        for client in &self.clients {
            let held = self.volumes.held(&self.node.target(&client.pod));
            let other = (client.spec.name == CALLER.name).then_some((id.as_str(), &served));
            let faults = faults(client, &held, away, other);
            let told = client.told();
            let counts = client
                .spec
                .follows
                .iter()
                .map(|by| format!("{by} {}", judge::serials(&told, by).len()));
            let counts = counts.collect::<Vec<_>>().join(", ");
            println!("{:<12} SVIDs: {counts} of {}", client.spec.name, held.serials.len());
            all.extend(faults.into_iter().map(|fault| format!("{}: {fault}", client.spec.name)));
        }
        println!("{:<12} calls: {:?}, none failed", CALLER.name, self.calls());
        assert!(all.is_empty(), "{}", all.join("\n"));
    }
}

/// The last words of a client, for whoever looks for the reason.
fn said(client: &Client) -> String {
    let told = client.told();
    let errors = told.iter().rev().filter(|told| matches!(told.event, Event::Error { .. }));
    let errors: Vec<_> = errors.take(3).map(|told| format!("{:?}", told.event)).collect();
    format!("  {}\n{}", errors.join("\n  "), client.complaints())
}

/// Another CA and another JWT key in the place of the first. The certificate goes first: in between,
/// the plugin sees a pair that doesn't match.
fn replace_keys(node: &Node) {
    let day = Duration::from_secs(86_400);
    let domain = TRUST_DOMAIN.parse().unwrap();
    let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now()).unwrap();
    let write = |name: &str, text: &str| fs::write(node.ca_dir().join(name), text).unwrap();
    write("tls.crt", &ca.certificate_pem());
    write("tls.key", &ca.key_pem());
    write("jwt.key", &JwtKey::generate(JwtKeyAlgorithm::Rs256).unwrap().to_pem().unwrap());
}

#[expect(clippy::disallowed_methods, reason = "a client asks its machine's clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn unix_now() -> u64 {
    now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}
