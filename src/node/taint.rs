//! SVIDs under a CA key that is believed stolen: when this node learned of it is kept in the
//! record, so that a restart does not begin to wait anew.

use std::time::SystemTime;

use super::{
    Node,
    volume::{Svid, Work},
};
use crate::{trust::TaintedKeys, volume::Taint};

// === impl Node ===

impl Node {
    /// Notes whether the volume's SVID is tainted. True if that is news. As long as nobody said
    /// which keys are, what the record says stands.
    pub(super) fn mark_taint(&self, work: &mut Work, now: SystemTime) -> bool {
        let Some(keys) = self.issuer.bundles.tainted() else {
            return false;
        };
        let next = still(work.svid.as_ref(), work.taint, &keys, now);
        std::mem::replace(&mut work.taint, next) != next
    }

    /// The same for the SVID that has just taken the place of `before`, or is the same.
    pub(super) fn mark_taint_of_next(
        &self,
        work: &mut Work,
        before: Option<&Svid>,
        now: SystemTime,
    ) {
        let serial = |svid: Option<&Svid>| svid.map(|svid| svid.x509.serial_hex().to_owned());
        if serial(work.svid.as_ref()) == serial(before) {
            self.mark_taint(work, now);
            return;
        }
        let keys = self.issuer.bundles.tainted().unwrap_or_default();
        let round = work.taint.map_or(0, |taint| taint.round.saturating_add(1));
        let next = still(work.svid.as_ref(), None, &keys, now);
        work.taint = next.map(|taint| Taint { round, ..taint });
    }
}

/// The taint of an SVID that had this one before.
fn still(
    svid: Option<&Svid>,
    before: Option<Taint>,
    keys: &TaintedKeys,
    now: SystemTime,
) -> Option<Taint> {
    keys.cover(&svid?.x509).then(|| match before {
        // A clock that was set back must not add to the wait.
        Some(taint) => Taint { since: taint.since.min(now), ..taint },
        None => Taint { since: now, round: 0 },
    })
}
