//! A CA Secret from a backup.

use tokio::time::{Instant, advance as pass};

use super::*;
use crate::{
    clock::Clock,
    controller::ca::{
        Keyring,
        document::{decode, encode},
        restore::{Stolen, is_restored},
        settings::{HANDOVER, SKEW},
        state::Home,
    },
};

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> std::time::SystemTime {
        start().time()
    }
}

fn home(secret: &str, map: &str) -> Home {
    Home { secret: Some(secret.to_owned()), map: Some(map.to_owned()) }
}

/// A leader whose first CA was replaced long ago, and a copy of its Secret from before.
fn old_copy() -> (Leader, CaState) {
    let mut leader = Leader::new();
    leader.world.home = home("s1", "m1");
    leader.act();
    let copy = decode(&encode(leader.state()).unwrap(), &domain(), leader.now).unwrap();
    leader.after(HOUR);
    leader.ask(Action::Rotate, None, false);
    leader.world.request = None;
    leader.after(PROPAGATION);
    leader.after(DAY * 2);
    assert_eq!((leader.stages(), leader.roots().len()), (vec!["active"], 1));
    (leader, copy)
}

/// Invariant 6: nodes have forgotten the root of the copy.
#[tokio::test(start_paused = true)]
async fn the_ca_of_an_old_copy_is_published_anew_before_it_signs() {
    // Into another Secret; the same with the ConfigMap; over the Secret that is there.
    for restored in [home("s2", "m1"), home("s2", "m2"), home("s1", "m1")] {
        let (mut leader, copy) = old_copy();
        let newer = leader.active().ca.anchors.clone();
        let sequence = leader.state().sequence;
        leader.world.home = restored.clone();
        if restored.map.as_deref() == Some("m2") {
            let bundle = copy.trust_bundle(&leader.settings).unwrap();
            leader.world.published = Some(Published { bundle, ours: true });
        }
        assert!(is_restored(&copy, &restored, leader.world.published.as_ref()));
        let old = copy.active().unwrap().ca.key_id.clone();
        leader.state = Some(copy);
        leader.after(HOUR);
        assert!(leader.state().sequence > sequence, "nodes take only what is newer");
        assert_eq!(leader.active_key(), old);
        if restored.map.as_deref() == Some("m1") {
            assert_eq!(leader.state().entries[1].ca.anchors, newer, "what lives is trusted still");
        }
        let again = leader.state().clone();
        leader.act();
        assert_eq!(*leader.state(), again, "taken over once");

        let started = Keyring::new(leader.settings.clone(), Arc::new(NoClock));
        started.heard(leader.state.clone(), Instant::now());
        let bundle = &leader.world.published.as_ref().unwrap().bundle;
        started.saw_bundle(bundle, leader.now.time());
        assert!(started.signing(leader.now.time()).is_err(), "{restored:?}");
        let last = leader.now.after(PROPAGATION + SKEW);
        assert!(started.signing(last.before(Duration::from_secs(1)).time()).is_err());
        assert_eq!(started.signing(last.time()).unwrap().key_id(), old);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_signed_with_it_before_waits_as_well() {
    let (mut leader, copy) = old_copy();
    let replica = Keyring::new(leader.settings.clone(), Arc::new(NoClock));
    let bundle = copy.trust_bundle(&leader.settings).unwrap();
    replica.heard(Some(copy.clone()), Instant::now());
    replica.saw_bundle(&bundle, start().time());
    assert!(replica.signing(start().time()).is_ok());
    leader.world.home = home("s2", "m1");
    leader.state = Some(copy);
    leader.act();
    pass(Duration::from_secs(1)).await;
    replica.heard(leader.state.clone(), Instant::now());
    replica.saw_bundle(&leader.world.published.as_ref().unwrap().bundle, leader.now.time());
    assert!(replica.signing(leader.now.time()).is_err());
}

#[test]
fn the_newest_copy_goes_on_at_once() {
    let mut leader = Leader::new();
    leader.world.home = home("s1", "m1");
    leader.act();
    leader.act();
    let published = leader.state().published.clone();
    leader.world.home = home("s2", "m1");
    leader.after(HOUR);
    assert_eq!(leader.state().published, published);
    assert_eq!(leader.state().home, home("s2", "m1"));
    assert!(leader.state().restored.is_some());
    // A ConfigMap that was deleted and made again is no restored Secret.
    leader.world.home = home("s2", "m3");
    leader.after(HOUR);
    assert_eq!(leader.state().restored, Some(start().after(HOUR)));
}

#[test]
fn a_copy_from_before_a_taint_does_not_bring_the_stolen_key_back() {
    for dropped in [false, true] {
        let (mut leader, copy) = old_copy();
        let key_id = copy.active().unwrap().ca.key_id.clone();
        leader.world.home = home("s2", "m1");
        leader.world.stolen = vec![Stolen { key_id: key_id.clone(), dropped }];
        leader.state = Some(copy);
        leader.act();
        leader.world.stolen.clear();
        let stolen = leader.state().entries[0].clone();
        assert!(stolen.tainted && leader.state().next().is_some(), "{:?}", leader.stages());
        assert_eq!(stolen.is_active(), !dropped);
        let root = &stolen.ca.anchors[0];
        assert_eq!(leader.roots().contains(root), !dropped);
        leader.after(PROPAGATION);
        assert_ne!(leader.active_key(), key_id);
        leader.after(HANDOVER);
        assert_eq!(leader.state().tainted(leader.now), [key_id]);
    }
}

#[test]
fn a_number_that_someone_else_wrote_is_not_the_last() {
    let mut leader = Leader::new();
    leader.act();
    let bundle = authority(DAY, start()).bundle().with_sequence(Some(u64::MAX));
    leader.world.published = Some(Published { bundle, ours: false });
    leader.act();
    assert!(leader.state().sequence < u64::MAX / 2);
}

#[test]
fn an_upstream_that_changes_all_the_time_does_not_fill_the_secret() {
    let mut leader = Leader::new();
    for _ in 0..40 {
        let now = leader.now;
        leader.offer(&authority(DAY * 30, now)).after(PROPAGATION);
    }
    assert!(leader.state().entries.len() <= crate::controller::ca::lifecycle::MAX_ENTRIES);
    assert!(leader.problems[0].contains("too often"), "{:?}", leader.problems);
}
