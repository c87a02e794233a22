//! The life of the CA, as rules over time.

mod jwt;
mod keyring;
mod leader;
mod leader_jwt;
mod lifecycle;
pub(crate) mod lineage;
mod lost;
mod requests;
mod restore;
mod simulation;
mod stored;
mod upstream;

use std::{sync::Arc, time::Duration};

use super::{
    CaSettings, CaState,
    entry::Entry,
    lifecycle::{Advanced, Published, Unfinished, Upstream, World, advance, begin},
    moment::Moment,
    request::{Action, Answer, Request},
};
use crate::{
    id::TrustDomain,
    jose::{JwtKey, JwtKeyAlgorithm},
    pki::{Authority, Certificate, KeyAlgorithm},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const PROPAGATION: Duration = Duration::from_secs(300);

fn start() -> Moment {
    Moment::of(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn settings() -> CaSettings {
    CaSettings::new(domain(), "svid-csi")
}

fn authority(lifetime: Duration, now: Moment) -> Arc<Authority> {
    let made = Authority::create(&domain(), KeyAlgorithm::EcdsaP256, lifetime, now.time());
    Arc::new(made.unwrap())
}

/// Takes a step, with a new JWT key if it needs one. ECDSA: RSA takes long.
fn stepped(world: &mut World, step: impl Fn(&World) -> Result<Advanced, Unfinished>) -> Advanced {
    world.jwt_key = None;
    match step(world) {
        Err(Unfinished::NeedsJwtKey) => {
            world.jwt_key = Some(Arc::new(JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap()));
            step(world).unwrap()
        }
        next => next.unwrap(),
    }
}

/// A leader that is alone: what it decides is stored and published at once.
struct Leader {
    settings: CaSettings,
    world: World,
    state: Option<CaState>,
    now: Moment,
    problems: Vec<String>,
}

impl Leader {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: CaSettings) -> Self {
        let (state, world) = (None, World::default());
        Self { settings, world, state, now: start(), problems: Vec::new() }
    }

    fn state(&self) -> &CaState {
        self.state.as_ref().unwrap()
    }

    /// Acts until nothing more is to be done now.
    fn act(&mut self) -> &mut Self {
        for _ in 0..10 {
            let next = self.next();
            self.problems = next.problems;
            let settled = self.state.as_ref() == Some(&next.state);
            self.state = Some(next.state);
            let bundle = self.state().trust_bundle(&self.settings).unwrap();
            if settled && self.world.published.as_ref().is_some_and(|p| p.bundle == bundle) {
                return self;
            }
            self.publish();
        }
        panic!("it never settles: {:?}", self.state);
    }

    /// Another state by the rules, with a new JWT key if they want one.
    fn next(&mut self) -> Advanced {
        stepped(&mut self.world, |world| match &self.state {
            None => begin(world, &self.settings, self.now),
            Some(state) => advance(state, world, &self.settings, self.now),
        })
    }

    fn publish(&mut self) {
        let bundle = self.state().trust_bundle(&self.settings).unwrap();
        self.world.published = Some(Published { bundle, ours: true });
    }

    fn after(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.after(span);
        self.act()
    }

    fn at(&mut self, moment: Moment) -> &mut Self {
        self.now = moment;
        self.act()
    }

    fn ask(&mut self, action: Action, key_id: Option<String>, force: bool) -> Answer {
        let uid = format!("{action:?} {key_id:?} {force} {}", self.now);
        self.world.request = Some(Request { uid, action, key_id, force, at: self.now });
        self.act();
        self.answer()
    }

    fn answer(&self) -> Answer {
        self.state().answer.clone().unwrap()
    }

    fn active(&self) -> &Entry {
        self.state().active().unwrap()
    }

    fn active_key(&self) -> String {
        self.active().ca.key_id.clone()
    }

    /// `state` of each CA, in order.
    fn stages(&self) -> Vec<&'static str> {
        self.state().entries.iter().map(|entry| entry.stage.label()).collect()
    }

    fn roots(&self) -> Vec<String> {
        self.state().roots().iter().map(Certificate::sha256).collect()
    }

    fn offer(&mut self, authority: &Arc<Authority>) -> &mut Self {
        self.settings.upstream = Some("upstream".to_owned());
        self.world.upstream = Upstream::Offered(authority.clone());
        self.act()
    }
}
