//! By hand: rotate, taint, retire.

use super::*;
use crate::controller::ca::{lifecycle::MAX_ENTRIES, request::Outcome, settings::SKEW};

#[test]
fn rotate_makes_the_next_ca_and_is_done_when_it_signs() {
    let mut leader = Leader::new();
    let first = leader.act().active_key();
    let answer = leader.ask(Action::Rotate, None, false);
    assert_eq!(answer.outcome, Outcome::Accepted);
    assert_eq!(leader.stages(), ["active", "prepared"]);
    leader.after(PROPAGATION - Duration::from_secs(1));
    assert_eq!(leader.answer().outcome, Outcome::Accepted);
    leader.after(Duration::from_secs(1));
    assert_eq!(
        (leader.answer().outcome, leader.stages()),
        (Outcome::Done, vec!["retired", "active"])
    );
    assert_ne!(leader.active_key(), first);
    assert!(leader.answer().message.contains(&leader.active_key()));

    let state = leader.state().clone();
    leader.act();
    assert_eq!(*leader.state(), state, "a request is acted on once");
}

#[test]
fn rotate_hurries_a_ca_that_was_prepared_by_age() {
    let mut leader = Leader::new();
    leader.act();
    let half = leader.active().sixths(3);
    leader.at(half);
    leader.after(DAY);
    let answer = leader.ask(Action::Rotate, None, false);
    assert_eq!((answer.outcome, leader.stages()), (Outcome::Done, vec!["retired", "active"]));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut leader = Leader::new();
    let key = leader.act().active_key();
    for (action, key_id, reason) in [
        (Action::Retire, Some(key), "this CA signs"),
        (Action::Retire, Some("ab".repeat(20)), "no CA or JWT key"),
        (Action::Taint, Some("ab".repeat(20)), "no CA or JWT key"),
        (Action::Retire, None, "no key was named"),
        (Action::Taint, None, "no key was named"),
        (Action::ReplaceLost, None, "nothing is lost"),
    ] {
        let before = leader.state().entries.clone();
        let answer = leader.ask(action, key_id, true);
        assert_eq!(answer.outcome, Outcome::Refused);
        assert!(answer.message.contains(reason), "{}", answer.message);
        assert_eq!(leader.state().entries, before);
    }
    leader.world.request = Some(Request {
        uid: "old".to_owned(),
        action: Action::Rotate,
        key_id: None,
        force: false,
        at: leader.now.before(HOUR),
    });
    leader.act();
    assert!(leader.answer().message.contains("check the clocks"), "{}", leader.answer().message);
    assert_eq!(leader.stages(), ["active"]);
}

/// The taint of a key that signs: another CA first, then the nodes are told.
#[test]
fn a_tainted_key_is_named_once_another_signs_and_nobody_uses_it_any_more() {
    let mut leader = Leader::new();
    let stolen = leader.act().active_key();
    assert_eq!(leader.ask(Action::Taint, Some(stolen.clone()), false).outcome, Outcome::Accepted);
    assert_eq!(leader.stages(), ["active", "prepared"]);
    assert!(leader.state().tainted(leader.now).is_empty(), "a renewal would not help yet");

    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
    assert!(leader.state().tainted(leader.now).is_empty(), "others may still sign with it");
    assert_eq!(leader.answer().outcome, Outcome::Accepted);
    leader.after(super::super::settings::HANDOVER);
    assert_eq!(leader.state().tainted(leader.now), std::slice::from_ref(&stolen));
    assert_eq!(leader.answer().outcome, Outcome::Done);

    let refused = leader.ask(Action::Retire, Some(stolen.clone()), false);
    assert!(refused.message.contains("--force"), "{}", refused.message);
    assert_eq!(leader.roots().len(), 2);
    let sequence = leader.state().sequence;
    assert_eq!(leader.ask(Action::Retire, Some(stolen.clone()), true).outcome, Outcome::Done);
    assert_eq!(leader.roots().len(), 1);
    assert!(leader.state().sequence > sequence);
    assert_eq!(leader.state().tainted(leader.now), [stolen], "as long as something may live");
    leader.after(DAY + HOUR);
    assert!(leader.state().tainted(leader.now).is_empty());
    assert_eq!(leader.stages(), ["active"]);
}

#[test]
fn a_tainted_ca_that_was_only_prepared_never_signs() {
    let mut leader = Leader::new();
    leader.act();
    let half = leader.active().sixths(3);
    leader.at(half);
    let prepared = leader.state().next().unwrap().ca.key_id.clone();
    assert_eq!(leader.ask(Action::Taint, Some(prepared.clone()), false).outcome, Outcome::Done);
    assert_eq!(leader.stages(), ["active", "prepared"], "another one");
    assert_ne!(leader.state().next().unwrap().ca.key_id, prepared);
}

#[test]
fn a_retiring_local_ca_can_be_dropped_by_force_and_comes_not_back() {
    let local = authority(DAY * 3650, start());
    let mut leader = Leader::new();
    leader.world.retiring = local.roots().to_vec();
    leader.act();
    leader.after(PROPAGATION);
    let key = local.certificate().key_id_hex();
    assert_eq!(leader.ask(Action::Retire, Some(key.clone()), false).outcome, Outcome::Refused);
    assert_eq!(leader.ask(Action::Taint, Some(key.clone()), false).outcome, Outcome::Done);
    assert_eq!(leader.state().tainted(leader.now), std::slice::from_ref(&key));
    assert_eq!(leader.ask(Action::Retire, Some(key), true).outcome, Outcome::Done);
    leader.after(HOUR);
    assert_eq!(leader.roots().len(), 1, "though its files are still shown");
}

#[test]
fn so_many_rotations_do_not_fill_the_secret() {
    let mut leader = Leader::new();
    leader.act();
    let mut refused = None;
    for _ in 0..MAX_ENTRIES {
        let answer = leader.ask(Action::Rotate, None, false);
        if answer.outcome == Outcome::Refused {
            refused = Some(answer);
            break;
        }
        leader.after(PROPAGATION);
    }
    assert!(refused.unwrap().message.contains("wait until the oldest is gone, at "));
    leader.after(DAY + HOUR + SKEW);
    assert_eq!(leader.ask(Action::Rotate, None, false).outcome, Outcome::Accepted);
}
