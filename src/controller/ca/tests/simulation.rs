//! Invariant 6 under random schedules, for certificates and tokens: leaders that die between their
//! writes, replicas and clocks that lag, requests at any time, Secrets lost and restored.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio::time::{Instant, advance as pass};

use super::*;
use crate::{
    clock::Clock,
    controller::ca::{
        Keyring,
        document::{decode, encode},
        lifecycle::{begin_again, names},
        restore::is_restored,
        state::Home,
    },
    jose::JwtSvid,
    pki::{Csr, PrivateKey, X509Svid},
};

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes, in seconds.
    Pass(u64),
    /// A replica that believes to lead acts; perhaps it dies after the first write.
    Lead { replica: usize, dies: bool },
    /// A replica reads the Secret, the ConfigMap or both.
    Look { replica: usize, secret: bool, map: bool },
    /// A replica starts anew.
    Restart(usize),
    /// A replica signs for so many seconds.
    Sign { replica: usize, ttl: u64 },
    /// A person asks.
    Ask { action: Action, which: usize },
    /// A person copies the Secret.
    Backup,
    /// The Secret is replaced by that copy.
    Restore,
    /// The Secret is gone for good, and this replica makes another.
    Lose { replica: usize, dies: bool },
}

const REPLICAS: usize = 3;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u64..40).prop_map(Event::Pass),
        2 => (0_u64..400).prop_map(Event::Pass),
        1 => (0_u64..40_000).prop_map(Event::Pass),
        6 => (0..REPLICAS, prop::bool::weighted(0.2))
            .prop_map(|(replica, dies)| Event::Lead { replica, dies }),
        6 => (0..REPLICAS, any::<bool>(), any::<bool>())
            .prop_map(|(replica, secret, map)| Event::Look { replica, secret, map }),
        1 => (0..REPLICAS).prop_map(Event::Restart),
        6 => (0..REPLICAS, 10_u64..90_000).prop_map(|(replica, ttl)| Event::Sign { replica, ttl }),
        3 => (
            prop_oneof![
                Just(Action::Rotate),
                Just(Action::RotateJwt),
                Just(Action::Taint),
                Just(Action::Retire)
            ],
            0..8_usize
        )
            .prop_map(|(action, which)| Event::Ask { action, which }),
        1 => prop_oneof![
            3 => Just(Event::Backup),
            2 => Just(Event::Restore),
            1 => (0..REPLICAS, any::<bool>())
                .prop_map(|(replica, dies)| Event::Lose { replica, dies }),
        ],
    ]
}

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> std::time::SystemTime {
        start().time()
    }
}

struct Sim {
    settings: CaSettings,
    /// By the sun.
    now: Moment,
    /// How far each replica's clock is ahead of the sun, and 30 s more.
    skews: [u64; REPLICAS],
    replicas: Vec<Arc<Keyring>>,
    secret: CaState,
    world: World,
    /// What every bundle had, by name, and from when it was published.
    history: Vec<(Moment, Vec<String>)>,
    svids: Vec<X509Svid>,
    /// With the keys that signed them.
    tokens: Vec<(String, JwtSvid)>,
    /// Every root that there ever was, by subject and by name.
    roots: BTreeSet<(String, String)>,
    backup: CaState,
    csr: Csr,
}

impl Sim {
    fn new(skews: [u64; REPLICAS], lifetime: Duration) -> Self {
        let mut settings = settings();
        settings.lifetime = lifetime;
        settings.jwt.lifetime = lifetime;
        let mut leader = Leader::with(settings.clone());
        leader.now = start();
        leader.act();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let csr = Csr::create(&key, &"spiffe://example.org/a".parse().unwrap()).unwrap();
        let mut sim = Self {
            backup: leader.state().clone(),
            replicas: (0..REPLICAS)
                .map(|_| Keyring::new(settings.clone(), Arc::new(NoClock)))
                .collect(),
            settings,
            now: start(),
            skews,
            secret: leader.state.unwrap(),
            world: leader.world,
            history: Vec::new(),
            svids: Vec::new(),
            tokens: Vec::new(),
            roots: BTreeSet::new(),
            csr,
        };
        sim.note();
        sim
    }

    /// As this replica's clock has it.
    fn clock(&self, replica: usize) -> Moment {
        self.now.after(Duration::from_secs(self.skews[replica])).before(Duration::from_secs(30))
    }

    fn note(&mut self) {
        let bundle = &self.world.published.as_ref().unwrap().bundle;
        let roots = bundle.x509_authorities();
        assert!(!roots.is_empty());
        self.roots.extend(roots.iter().map(|root| (root.subject(), root.sha256())));
        let names = names(bundle);
        if self.history.last().is_none_or(|(_, last)| *last != names) {
            self.history.push((self.now, names));
        }
    }

    fn lead(&mut self, replica: usize, dies: bool) {
        let now = self.clock(replica);
        let next =
            stepped(&mut self.world, |world| advance(&self.secret, world, &self.settings, now))
                .state;
        // Through the Secret, as it would be read by the next leader.
        self.secret = decode(&encode(&next).unwrap(), &domain(), now).unwrap();
        assert_eq!(self.secret, next);
        if dies {
            return;
        }
        self.publish();
    }

    fn publish(&mut self) {
        let last = self.world.published.as_ref().unwrap().bundle.clone();
        let bundle = self.secret.trust_bundle(&self.settings).unwrap();
        if bundle != last {
            assert!(
                bundle.sequence() > last.sequence(),
                "{:?} {:?}",
                bundle.sequence(),
                last.sequence()
            );
        }
        self.world.published = Some(Published { bundle, ours: true });
        self.note();
    }

    /// Every bundle that a verifier may hold now.
    fn held(&self) -> impl Iterator<Item = &Vec<String>> {
        let oldest = self.now.before(PROPAGATION);
        let last = self.history.iter().rposition(|(since, _)| *since <= oldest).unwrap_or(0);
        self.history[last..].iter().map(|(_, roots)| roots)
    }

    /// Each SVID that anyone may take for valid is verified by everyone.
    fn check(&mut self) {
        let (now, lag) = (self.now, Duration::from_secs(30));
        self.svids.retain(|svid| Moment::of(svid.not_after()).after(lag) > now);
        for svid in &self.svids {
            let key = svid.leaf().issuer();
            let known = |names: &Vec<String>| {
                self.roots.iter().any(|(subject, name)| *subject == key && names.contains(name))
            };
            for names in self.held() {
                assert!(known(names), "at {now}: {svid:?} is not trusted by {names:?}");
            }
        }
        self.tokens.retain(|(_, svid)| Moment::of(svid.expires_at()).after(lag) > now);
        for (key, svid) in &self.tokens {
            for names in self.held() {
                assert!(names.contains(key), "at {now}: {svid:?} of {key} is not in {names:?}");
            }
        }
    }

    fn another_secret(&mut self) {
        let uid = format!("{} {}", self.now, self.history.len());
        self.world.home = Home { secret: Some(uid), map: Some("map".to_owned()) };
    }

    async fn happen(&mut self, event: &Event) {
        match event {
            Event::Pass(seconds) => {
                self.now = self.now.after(Duration::from_secs(*seconds));
                pass(Duration::from_secs(*seconds)).await;
            }
            Event::Lead { replica, dies } => self.lead(*replica, *dies),
            Event::Look { replica, secret, map } => {
                let now = self.clock(*replica);
                if *secret {
                    let published = self.world.published.as_ref();
                    let fit = !is_restored(&self.secret, &self.world.home, published);
                    let state = fit.then(|| self.secret.clone());
                    self.replicas[*replica].heard(state, Instant::now());
                }
                if *map {
                    let bundle = &self.world.published.as_ref().unwrap().bundle;
                    self.replicas[*replica].saw_bundle(bundle, now.time());
                }
            }
            Event::Restart(replica) => {
                self.replicas[*replica] = Keyring::new(self.settings.clone(), Arc::new(NoClock));
            }
            Event::Sign { replica, ttl } => {
                let now = self.clock(*replica).time();
                let id = "spiffe://example.org/a".parse().unwrap();
                let ttl = Duration::from_secs(*ttl);
                if let Ok(authority) = self.replicas[*replica].signing(now) {
                    let key = self.csr.public_key();
                    self.svids.extend(authority.issue(key, &id, &[], ttl, now));
                }
                if let Ok(key) = self.replicas[*replica].signing_jwt(now) {
                    let audience = ["b".to_owned()];
                    let svid = key.sign(&id, &audience, ttl, &BTreeMap::new(), now);
                    self.tokens.extend(svid.map(|svid| (key.key_id().to_owned(), svid)));
                }
            }
            Event::Backup => self.backup = self.secret.clone(),
            Event::Restore => {
                self.secret = self.backup.clone();
                self.another_secret();
            }
            Event::Lose { replica, dies } => {
                let now = self.clock(*replica);
                let last = self.replicas[*replica].state();
                self.world.published.as_mut().unwrap().ours = false;
                self.another_secret();
                self.secret = stepped(&mut self.world, |world| {
                    begin_again(last.as_deref(), world, &self.settings, now)
                })
                .state;
                // No copy of the lost one was made: that one would have been restored.
                self.backup = self.secret.clone();
                if !dies {
                    self.publish();
                }
            }
            Event::Ask { action, which } => {
                let keys: Vec<String> = self
                    .secret
                    .entries
                    .iter()
                    .map(|e| e.ca.key_id.clone())
                    .chain(self.secret.jwt_keys.iter().map(|e| e.key_id().to_owned()))
                    .collect();
                let key_id = keys.get(*which % keys.len()).cloned();
                let uid = format!("{} {}", self.now, self.history.len());
                self.world.request =
                    Some(Request { uid, action: *action, key_id, force: false, at: self.now });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whoever_saw_the_bundle_in_time_verifies_every_live_svid(
        skews in [0_u64..=60, 0_u64..=60, 0_u64..=60],
        days in 1_u64..9,
        events in prop::collection::vec(event(), 1..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut sim = Sim::new(skews, DAY * u32::try_from(days).unwrap());
            for event in &events {
                sim.happen(event).await;
                sim.check();
            }
        });
    }
}
