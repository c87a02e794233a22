//! By age: prepare, publish, activate, retire, remove.

use super::*;
use crate::controller::ca::{
    LastRequest, Outcome,
    settings::{HANDOVER, RETIRING, SKEW},
    stage::Stage,
};

#[test]
fn the_first_ca_signs_as_soon_as_it_is_published() {
    let mut leader = Leader::new();
    leader.act();
    assert_eq!(leader.stages(), ["active"]);
    assert_eq!(leader.state().sequence, start().seconds());
    assert!(leader.problems.is_empty());
}

/// Invariant 6, the whole life.
#[test]
fn a_ca_is_published_before_it_signs_and_trusted_until_its_last_svid_has_ended() {
    let mut leader = Leader::new();
    let first = leader.act().active_key();
    let begin = Moment::of(leader.active().ca.certificate.not_before());
    let (half, two_thirds) = (leader.active().sixths(3), leader.active().sixths(4));
    assert_eq!(half.since(begin), leader.active().end().since(begin) / 2);

    leader.at(half.before(Duration::from_secs(1)));
    assert_eq!(leader.stages(), ["active"]);
    let sequence = leader.state().sequence;
    leader.at(half);
    assert_eq!(leader.stages(), ["active", "prepared"]);
    assert!(leader.state().sequence > sequence, "another bundle has another number");
    let next = leader.state().next().unwrap().ca.key_id.clone();

    leader.at(two_thirds.before(Duration::from_secs(1)));
    assert_eq!(leader.active_key(), first);
    let sequence = leader.state().sequence;
    leader.at(two_thirds);
    assert_eq!(leader.stages(), ["retired", "active"]);
    assert_eq!(leader.active_key(), next);
    assert_eq!(leader.state().sequence, sequence, "who signs changes no bundle");

    let Stage::Retired { sign_until, remove_at, .. } = leader.state().entries[0].stage else {
        panic!("not retired");
    };
    assert_eq!(sign_until, two_thirds.after(HANDOVER));
    assert_eq!(remove_at, sign_until.after(DAY + SKEW));
    leader.at(sign_until.after(SKEW));
    assert!(leader.state().entries[0].ca.authority.is_none(), "the key is gone");
    assert_eq!(leader.roots().len(), 2);
    leader.at(remove_at.after(SKEW).before(Duration::from_secs(1)));
    assert_eq!(leader.roots().len(), 2);
    leader.at(remove_at.after(SKEW));
    assert_eq!((leader.stages(), leader.roots().len()), (vec!["active"], 1));
}

#[test]
fn a_prepared_ca_waits_for_its_publication_and_not_for_one_that_did_not_happen() {
    let mut leader = Leader::new();
    leader.act();
    let half = leader.active().sixths(3);
    let old = leader.world.published.clone();
    leader.now = half;
    // The Secret was written, and then the leader died before it wrote the ConfigMap.
    let crashed = stepped(&mut leader.world, |world| {
        advance(leader.state.as_ref().unwrap(), world, &leader.settings, half)
    });
    leader.state = Some(crashed.state);
    let two_thirds = leader.active().sixths(4);
    leader.now = two_thirds.after(HOUR);
    let waiting = leader.next();
    assert_eq!(waiting.state.entries[1].stage.label(), "prepared", "never published");

    leader.act();
    assert_eq!(leader.stages(), ["active", "prepared"], "published a moment ago");
    leader.after(PROPAGATION / 2);
    // Someone puts the old bundle back: the time begins anew.
    leader.world.published = old;
    leader.act();
    leader.after(PROPAGATION / 2 + Duration::from_secs(1));
    assert_eq!(leader.stages(), ["active", "prepared"]);
    leader.after(PROPAGATION / 2);
    assert_eq!(leader.stages(), ["retired", "active"]);
}

#[test]
fn an_expired_ca_is_replaced_and_nothing_signs_before_the_next_is_published() {
    let mut leader = Leader::new();
    let first = leader.act().active_key();
    let end = leader.active().end();
    leader.at(end.after(DAY * 30));
    assert_eq!(leader.stages(), ["active", "prepared"]);
    assert_eq!(leader.active_key(), first);
    leader.after(PROPAGATION);
    assert_eq!(leader.state().entries.iter().filter(|entry| entry.is_active()).count(), 1);
    assert_ne!(leader.active_key(), first);
    assert_eq!(leader.stages(), ["active"], "nothing under the old one can be alive");
}

#[test]
fn clocks_that_are_set_back_delay_a_step_by_the_propagation_time_at_most() {
    let mut leader = Leader::new();
    leader.act();
    leader.after(DAY);
    leader.ask(Action::Rotate, None, false);
    leader.at(start().after(HOUR));
    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
}

/// Leaving `local`: of the old CA only the certificate, until its last SVID has ended.
#[test]
fn a_retiring_local_ca_is_published_while_it_is_shown_and_for_a_day_after() {
    let local = authority(DAY * 3650, start());
    let mut leader = Leader::new();
    leader.world.retiring = local.roots().to_vec();
    leader.act();
    assert_eq!(leader.stages(), ["foreign", "prepared"]);
    assert_eq!(leader.roots().len(), 2);
    assert!(leader.state().entries[0].ca.authority.is_none());
    // Nodes trust the local CA already: they have to learn of ours first.
    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["foreign", "active"]);

    leader.after(DAY * 60);
    assert_eq!(leader.stages(), ["foreign", "active"]);
    let written = leader.state().clone();
    leader.after(Duration::from_secs(60));
    assert_eq!(*leader.state(), written, "not a write each time it is seen");

    leader.world.retiring.clear();
    leader.after(DAY);
    assert_eq!(leader.roots().len(), 2);
    leader.after(RETIRING);
    assert_eq!(leader.stages(), ["active"]);
}

/// Invariant 5.
#[test]
fn a_key_that_was_on_nodes_is_never_adopted() {
    let local = authority(DAY * 3650, start());
    let mut leader = Leader::new();
    leader.world.retiring = local.roots().to_vec();
    leader.act();
    leader.after(PROPAGATION);
    let own = leader.active_key();
    leader.offer(&local);
    assert!(leader.problems[0].contains("was on nodes"), "{:?}", leader.problems);
    leader.world.retiring.clear();
    leader.after(DAY * 10);
    assert!(leader.problems[0].contains("was on nodes"), "not even later");
    assert_eq!(leader.active_key(), own);
}

#[test]
fn someone_elses_root_is_taken_out_again() {
    let mut leader = Leader::new();
    leader.act();
    let ours = leader.state().trust_bundle(&leader.settings).unwrap();
    let theirs = authority(DAY, start()).bundle();
    let sequence = leader.state().sequence + 1_000;
    let both = ours.merged(&theirs).with_sequence(Some(sequence));
    leader.world.published = Some(Published { bundle: both, ours: false });
    let next = leader.next();
    assert!(next.problems[0].contains("not ours"), "{:?}", next.problems);
    assert_eq!(next.state.sequence, sequence + 1, "nodes take only what is newer");
    assert_eq!(next.state.roots(), ours.x509_authorities());
}

#[test]
fn a_request_that_was_answered_while_the_secret_was_away_is_not_acted_on_later() {
    let mut leader = Leader::new();
    leader.act();
    let told = |outcome| LastRequest {
        uid: "1".to_owned(),
        action: Action::Rotate,
        outcome,
        message: "the CA Secret has vanished".to_owned(),
        at: start(),
    };
    let (uid, action, at) = ("1".to_owned(), Action::Rotate, leader.now);
    leader.world.request = Some(Request { uid, action, key_id: None, force: false, at });
    leader.world.answered = Some(told(Outcome::Refused));
    leader.act();
    assert_eq!((leader.stages(), leader.answer().outcome), (vec!["active"], Outcome::Refused));
    // Nor one that the lost Secret was at work on.
    if let Some(state) = &mut leader.state {
        state.answer = None;
    }
    leader.world.answered = Some(told(Outcome::Accepted));
    leader.act();
    assert_eq!((leader.stages(), leader.answer().outcome), (vec!["active"], Outcome::Refused));
}

#[test]
fn an_older_copy_of_the_secret_keeps_what_was_published_since() {
    let mut leader = Leader::new();
    leader.act();
    let backup = leader.state().clone();
    leader.after(HOUR);
    leader.ask(Action::Rotate, None, false);
    leader.after(PROPAGATION);
    assert_eq!(leader.stages(), ["retired", "active"]);
    let newer = leader.active().ca.anchors.clone();
    let sequence = leader.state().sequence;

    leader.state = Some(backup);
    leader.world.request = None;
    leader.after(HOUR);
    assert_eq!(leader.stages(), ["active", "foreign"]);
    assert_eq!(leader.state().entries[1].ca.anchors, newer);
    assert!(leader.state().sequence > sequence);
    leader.after(DAY + HOUR);
    assert_eq!(leader.stages(), ["active"]);
}
