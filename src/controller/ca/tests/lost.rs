//! The CA Secret is gone for good.

use super::*;
use crate::controller::ca::{lifecycle::begin_again, request::Outcome};

fn lost(keep_memory: bool) -> (Leader, Vec<String>) {
    let mut leader = Leader::new();
    leader.act();
    leader.after(HOUR);
    let before = leader.roots();
    let last = leader.state.take().filter(|_| keep_memory);
    if let Some(published) = &mut leader.world.published {
        published.ours = false;
    }
    leader.world.request = Some(Request {
        uid: "1".to_owned(),
        action: Action::ReplaceLost,
        key_id: None,
        force: false,
        at: leader.now,
    });
    let begun = stepped(&mut leader.world, |world| {
        begin_again(last.as_ref(), world, &leader.settings, leader.now)
    });
    leader.state = Some(begun.state);
    leader.publish();
    leader.act();
    (leader, before)
}

/// Invariant 6: whoever asked for a new CA did not ask to break what lives.
#[test]
fn a_new_ca_keeps_the_roots_that_were_published_until_what_is_under_them_has_ended() {
    for memory in [false, true] {
        let (mut leader, before) = lost(memory);
        assert_eq!(leader.stages(), ["foreign", "prepared"]);
        assert_eq!(leader.answer().outcome, Outcome::Accepted);
        assert_eq!(leader.roots()[0], before[0]);
        leader.after(PROPAGATION);
        assert_eq!(leader.stages(), ["foreign", "active"]);
        assert_eq!(leader.answer().outcome, Outcome::Done);
        leader.after(DAY - PROPAGATION);
        assert_eq!(leader.roots().len(), 2);
        leader.after(HOUR);
        assert_eq!(leader.stages(), ["active"]);
    }
}

#[test]
fn its_bundle_has_a_higher_number_than_the_one_before() {
    let (leader, _) = lost(false);
    let sequence = start().after(HOUR).seconds();
    assert!(leader.state().sequence >= sequence, "{}", leader.state().sequence);
}
