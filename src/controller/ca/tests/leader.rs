//! Replicas that follow and lead, on an API server in this process.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    clock::Clock,
    controller::ca::{CaStatus, Keyring, LastRequest, Outcome},
    k8s::fake_store::FakeStore,
};

pub(super) const SECRET: &str = "secrets/svid-csi-ca-keys";
pub(super) const MAP: &str = "configmaps/svid-csi-bundle";
pub(super) const LOOK: Duration = Duration::from_secs(20);

/// The runtime's time, so that it can be passed.
struct Passing(Instant);

impl Clock for Passing {
    fn now(&self) -> std::time::SystemTime {
        start().time() + self.0.elapsed()
    }
}

pub(super) struct Replicas {
    pub(super) api: Arc<FakeStore>,
    clock: Arc<Passing>,
    tasks: JoinSet<()>,
}

pub(super) struct Replica {
    pub(super) keyring: Arc<Keyring>,
    pub(super) leads: watch::Sender<bool>,
    pub(super) stop: CancellationToken,
}

impl Replicas {
    pub(super) fn new() -> Self {
        let clock = Arc::new(Passing(Instant::now()));
        Self { api: FakeStore::new(), clock, tasks: JoinSet::new() }
    }

    pub(super) fn start(&mut self, leading: bool) -> Replica {
        let keyring = Keyring::new(settings(), self.clock.clone());
        let (leads, led) = watch::channel(leading);
        let stop = CancellationToken::new();
        self.tasks.spawn(keyring.clone().run(self.api.cluster(), led, stop.clone()));
        Replica { keyring, leads, stop }
    }

    pub(super) fn now(&self) -> std::time::SystemTime {
        self.clock.now()
    }

    pub(super) fn status(&self) -> CaStatus {
        let map = self.api.get(MAP).unwrap();
        CaStatus::from_json(map["data"]["status.json"].as_str().unwrap()).unwrap()
    }

    fn stages(&self) -> Vec<String> {
        self.status().authorities.into_iter().map(|ca| ca.state).collect()
    }

    /// Asks, and comes back when it had time to be noticed.
    pub(super) async fn ask(&self, action: &str) -> LastRequest {
        self.request(action).await;
        self.status().last_request.unwrap()
    }

    async fn request(&self, action: &str) {
        let at = Moment::of(self.now());
        let request = json!({ "uid": format!("{action} {at}"), "action": action, "at": at });
        let mut map = self.api.get(MAP).unwrap();
        map["metadata"]["annotations"]["svid.dev/ca-request"] = json!(request.to_string());
        self.api.put(MAP, map);
        sleep(LOOK).await;
    }

    fn key(&self, replica: &Replica) -> String {
        replica.keyring.signing(self.now()).unwrap().key_id().to_owned()
    }

    fn problem(&self, replica: &Replica) -> String {
        replica.keyring.status(self.now()).problem.unwrap_or_default()
    }
}

/// Invariant 1, and what the first start makes.
#[tokio::test(start_paused = true)]
async fn the_leader_makes_a_ca_and_the_others_sign_with_it() {
    let mut replicas = Replicas::new();
    let follower = replicas.start(false);
    sleep(LOOK).await;
    assert!(replicas.problem(&follower).contains("there is no CA yet"));
    let leader = replicas.start(true);
    sleep(LOOK).await;
    assert_eq!(replicas.key(&leader), replicas.key(&follower));
    assert_eq!(replicas.stages(), ["active"]);
    let map = replicas.api.get(MAP).unwrap().to_string();
    let data = replicas.api.get(SECRET).unwrap()["data"].clone();
    for (name, bytes) in data.as_object().unwrap() {
        let text = STANDARD.decode(bytes.as_str().unwrap()).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let secret =
            name.ends_with(".key").then(|| text.lines().nth(1).unwrap_or(&text).to_owned());
        assert!(secret.is_none_or(|secret| !map.contains(&secret)), "{name}");
    }
    leader.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn two_that_believe_to_lead_end_with_one_ca() {
    let mut replicas = Replicas::new();
    let (one, two) = (replicas.start(true), replicas.start(true));
    sleep(LOOK).await;
    assert_eq!(replicas.key(&one), replicas.key(&two));
    assert_eq!(replicas.ask("rotate").await.outcome, Outcome::Accepted);
    assert_eq!(replicas.stages(), ["active", "prepared"]);
    sleep(PROPAGATION + LOOK).await;
    assert_eq!(replicas.stages(), ["retired", "active"]);
    sleep(PROPAGATION).await;
    assert_eq!(replicas.key(&one), replicas.key(&two));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_between_its_writes_leaves_nothing_half_done() {
    let mut replicas = Replicas::new();
    let one = replicas.start(true);
    sleep(LOOK).await;
    replicas.api.fail("PUT configmaps", 500, usize::MAX);
    let before = replicas.status();
    replicas.request("rotate").await;
    assert_eq!(replicas.status(), before, "the Secret has it, the ConfigMap has not");
    one.stop.cancel();
    sleep(PROPAGATION).await;
    let two = {
        let api = FakeStore::new();
        for path in [SECRET, MAP] {
            api.put(path, replicas.api.get(path).unwrap());
        }
        replicas.api = api;
        replicas.start(true)
    };
    sleep(LOOK).await;
    assert_eq!(replicas.stages(), ["active", "prepared"]);
    sleep(PROPAGATION - LOOK * 2).await;
    assert_eq!(replicas.stages(), ["active", "prepared"], "it counts from its publication");
    sleep(LOOK * 3).await;
    assert_eq!(replicas.stages(), ["retired", "active"]);
    replicas.key(&two);
}

#[tokio::test(start_paused = true)]
async fn conflicts_throttling_and_an_api_server_that_is_away_are_outlived() {
    let mut replicas = Replicas::new();
    let leader = replicas.start(true);
    sleep(LOOK).await;
    replicas.api.fail("PUT secrets", 409, 3);
    replicas.api.fail("PUT configmaps", 429, 2);
    assert_eq!(replicas.ask("rotate").await.outcome, Outcome::Accepted);

    replicas.api.fail("GET", 503, 30);
    sleep(Duration::from_secs(50)).await;
    assert!(replicas.problem(&leader).contains("503"), "{}", replicas.problem(&leader));
    replicas.key(&leader);
    sleep(Duration::from_secs(60)).await;
    assert!(replicas.problem(&leader).is_empty());
    replicas.key(&leader);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_vanished_is_replaced_only_when_a_person_says_so() {
    let mut replicas = Replicas::new();
    let one = replicas.start(true);
    sleep(LOOK).await;
    let first = replicas.key(&one);
    let backup = replicas.api.remove(SECRET).unwrap();
    sleep(LOOK).await;
    assert!(replicas.problem(&one).contains("has vanished"));
    assert!(replicas.status().problem.unwrap().contains("has vanished"));
    assert_eq!(replicas.key(&one), first, "it has it in memory");
    assert_eq!(replicas.ask("rotate").await.outcome, Outcome::Refused);
    assert!(replicas.api.get(SECRET).is_none());

    // Restored: on it goes, and the refused request stays refused.
    replicas.api.put(SECRET, backup);
    sleep(LOOK).await;
    assert_eq!(replicas.status().problem, None);
    assert_eq!(replicas.stages(), ["active"]);
    assert_eq!(replicas.ask("replace-lost").await.outcome, Outcome::Refused, "nothing is lost");

    replicas.api.remove(SECRET);
    one.stop.cancel();
    let two = replicas.start(true);
    sleep(LOOK).await;
    assert!(two.keyring.signing(replicas.now()).unwrap_err().reason.contains("has vanished"));
    assert_eq!(replicas.ask("replace-lost").await.outcome, Outcome::Accepted);
    assert_eq!(replicas.stages(), ["foreign", "prepared"]);
    sleep(PROPAGATION).await;
    assert_ne!(replicas.key(&two), first);
    assert_eq!(replicas.status().last_request.unwrap().outcome, Outcome::Done);
}

/// Bad input: a clear status, the last good kept.
#[tokio::test(start_paused = true)]
async fn damage_is_said_and_changes_nothing() {
    let mut replicas = Replicas::new();
    let leader = replicas.start(true);
    sleep(LOOK).await;
    let (key, good) = (replicas.key(&leader), replicas.api.get(SECRET).unwrap());
    let mut damaged = good.clone();
    damaged["data"]["state.json"] = json!(STANDARD.encode("{"));
    replicas.api.put(SECRET, damaged);
    sleep(LOOK).await;
    assert!(replicas.status().problem.unwrap().contains("can't be used: state.json"));
    assert_eq!(replicas.key(&leader), key);
    replicas.api.put(SECRET, good);

    // What someone else writes into the ConfigMap goes again.
    let break_map = |change: &dyn Fn(&mut Value)| {
        let mut map = replicas.api.get(MAP).unwrap();
        change(&mut map["data"]);
        replicas.api.put(MAP, map);
    };
    sleep(LOOK).await;
    let before = replicas.api.get(MAP).unwrap()["data"]["bundle.json"].clone();
    break_map(&|data| data["bundle.json"] = json!("{}"));
    sleep(LOOK).await;
    assert_eq!(replicas.api.get(MAP).unwrap()["data"]["bundle.json"], before);
    break_map(&|data| data["tainted"] = json!("00\n"));
    break_map(&|data| data["status.json"] = json!("?"));
    sleep(LOOK).await;
    let map = replicas.api.get(MAP).unwrap();
    assert_eq!((&map["data"]["tainted"], replicas.status().problem), (&json!(""), None));
    replicas.api.remove(MAP);
    sleep(LOOK).await;
    assert_eq!(replicas.api.get(MAP).unwrap()["data"]["bundle.json"], before);

    // A request that can't be read is no request.
    let mut map = replicas.api.get(MAP).unwrap();
    map["metadata"]["annotations"]["svid.dev/ca-request"] = json!("rotate!");
    replicas.api.put(MAP, map);
    sleep(LOOK).await;
    assert!(replicas.status().problem.unwrap().contains("the request to the CA"));
    assert_eq!(replicas.key(&leader), key);
    leader.leads.send_replace(false);
}
