//! Who may sign on this replica.

use tokio::time::{Instant, advance as pass};

use super::*;
use crate::{
    clock::Clock,
    controller::ca::{
        Keyring,
        keyring::FRESH,
        settings::{HANDOVER, SKEW},
    },
    pki::{Csr, PrivateKey},
};

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> std::time::SystemTime {
        start().time()
    }
}

/// A replica that follows this leader.
struct Replica(Arc<Keyring>);

impl Replica {
    fn new(settings: &CaSettings) -> Self {
        Self(Keyring::new(settings.clone(), Arc::new(NoClock)))
    }

    fn look(&self, leader: &Leader) -> &Self {
        self.0.heard(leader.state.clone(), Instant::now());
        if let Some(published) = &leader.world.published {
            self.0.saw_bundle(&published.bundle, leader.now.time());
        }
        self
    }

    fn key(&self, now: Moment) -> String {
        self.0.signing(now.time()).unwrap().key_id().to_owned()
    }

    fn why_not(&self, now: Moment) -> String {
        self.0.signing(now.time()).unwrap_err().reason
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_signs_before_the_secret_and_the_bundle_were_seen() {
    let mut leader = Leader::new();
    let replica = Replica::new(&leader.settings);
    assert!(replica.why_not(leader.now).contains("has not been read yet"));
    leader.act();
    replica.0.heard(leader.state.clone(), Instant::now());
    assert!(replica.why_not(leader.now).contains("is not in the published ConfigMap"));
    replica.look(&leader);
    assert_eq!(replica.key(leader.now), leader.active_key(), "the first CA waits for nobody");
    assert!(replica.why_not(leader.now.before(HOUR)).contains("signs from"));
    let end = leader.active().end();
    assert!(replica.why_not(end).contains("ended"), "{}", replica.why_not(end));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_hears_nothing_stops_before_another_ca_could_sign_alone() {
    assert!(FRESH < HANDOVER);
    let mut leader = Leader::new();
    let replica = Replica::new(&leader.settings);
    replica.look(leader.act());
    pass(FRESH).await;
    assert_eq!(replica.key(leader.now), leader.active_key());
    pass(Duration::from_secs(1)).await;
    assert!(replica.why_not(leader.now).contains("nothing was heard"));
    // The Secret vanished or is damaged: what is known goes on as long as that is seen.
    replica.0.heard(None, Instant::now());
    assert_eq!(replica.key(leader.now), leader.active_key());
}

/// Invariant 6: seen by the signing replica for the propagation time, whatever the leader's clock.
#[tokio::test(start_paused = true)]
async fn a_new_ca_signs_here_only_when_its_root_was_seen_for_long_enough() {
    let mut leader = Leader::new();
    let replica = Replica::new(&leader.settings);
    let first = leader.act().active_key();
    replica.look(&leader);
    leader.after(HOUR).ask(Action::Rotate, None, false);
    // Our clock is behind the leader's: the root appears at an earlier time than the leader says.
    replica.look(&leader);
    let seen = leader.now;
    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
    let second = leader.active_key();
    replica.0.heard(leader.state.clone(), Instant::now());
    let early = seen.after(PROPAGATION - Duration::from_secs(1));
    assert_eq!(replica.key(early), first, "the one before goes on for the handover");
    assert_eq!(replica.key(seen.after(PROPAGATION)), second);

    // A replica that saw no bundle without it believes the leader, and a clock that is behind.
    let late = Replica::new(&leader.settings);
    late.look(&leader);
    assert_eq!(late.key(seen.after(PROPAGATION)), first);
    assert_eq!(late.key(seen.after(PROPAGATION + SKEW)), second);
}

#[tokio::test(start_paused = true)]
async fn the_one_before_stops_at_its_end_and_what_it_signs_ends_before_its_root_goes() {
    let mut leader = Leader::new();
    let replica = Replica::new(&leader.settings);
    let first = leader.act().active_key();
    replica.look(&leader);
    leader.ask(Action::Rotate, None, false);
    replica.look(&leader);
    leader.after(PROPAGATION);
    let until = leader.now.after(HANDOVER);
    // Its root is not to be seen here: the one before signs.
    replica.0.heard(leader.state.clone(), Instant::now());
    let before = leader.state().entries[0].ca.authority.clone().unwrap();
    replica.0.saw_bundle(&before.bundle(), leader.now.time());
    let last = until.before(Duration::from_secs(1));
    let signing = replica.0.signing(last.time()).unwrap();
    assert_eq!(signing.key_id(), first);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let id = "spiffe://example.org/ns/a/sa/b".parse().unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let svid = signing.issue(csr.public_key(), &id, &[], DAY * 300, last.time()).unwrap();
    let remove_at = leader.state().entries[0].remove_at().unwrap();
    assert_eq!(Moment::of(svid.not_after()), last.after(DAY), "the longest lifetime");
    assert!(Moment::of(svid.not_after()) < remove_at);
    let late = remove_at.before(HOUR);
    let svid = signing.issue(csr.public_key(), &id, &[], DAY, late.time()).unwrap();
    assert_eq!(Moment::of(svid.not_after()), remove_at);
    assert!(signing.issue(csr.public_key(), &id, &[], DAY, remove_at.time()).is_err());
    assert!(
        replica.why_not(until).contains("is not in the published"),
        "{}",
        replica.why_not(until)
    );
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_is_due_and_what_is_wrong() {
    let mut leader = Leader::new();
    let replica = Replica::new(&leader.settings);
    let status = replica.0.status(leader.now.time());
    assert!(status.ready.is_err() && status.active_not_after.is_none());
    replica.look(leader.act());
    let half = leader.active().sixths(3);
    let status = replica.0.status(half.after(HOUR).time());
    assert_eq!(status.next_step, Some(("prepare", half.time())));
    assert_eq!(status.overdue, HOUR - SKEW);
    assert_eq!(status.authorities.into_iter().collect::<Vec<_>>(), [("active", 1)]);
    assert_eq!(status.sequence, Some(start().seconds()));
    replica.0.say(vec!["one".to_owned(), "two".to_owned()]);
    assert_eq!(replica.0.status(half.time()).problem.as_deref(), Some("one; two"));
}
