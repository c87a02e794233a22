//! What the pod's owner is told, in Events on the Pod.

use super::{Node, NodeError, volume::Work};
use crate::{
    class::Class,
    k8s::{EventReason, PodEvent},
    volume::duration,
};

/// How often a renewal looks for a token before kubelet must have come: once a minute.
const FAILURES_BEFORE_REPUBLISH: u32 = 3;

// === impl Node ===

impl Node {
    /// A publish that a signer refused. What else fails, kubelet tells by itself.
    pub(super) fn tell_refused(&self, work: &Work, error: &NodeError) {
        let reason = match error {
            NodeError::Sign(error) if error.class() == Class::Denied => EventReason::Denied,
            NodeError::Sign(error) if error.class() == Class::Unavailable => return,
            NodeError::NoPodToken(reason) if reason.waits_for_republish() => return,
            NodeError::Sign(_) | NodeError::NoPodToken(_) | NodeError::Refused(_) => {
                EventReason::Failed
            }
            _ => return,
        };
        self.tell(work, reason, error.to_string());
    }

    /// A renewal that failed, for whatever reason.
    pub(super) fn tell_not_renewed(&self, work: &Work, error: &NodeError) {
        let reason = match error {
            NodeError::Unpublishing(_) | NodeError::ShuttingDown => return,
            // Nothing is wrong before kubelet had the time to come.
            NodeError::NoPodToken(reason)
                if reason.waits_for_republish() && work.failures < FAILURES_BEFORE_REPUBLISH =>
            {
                return;
            }
            error if error.class() == Class::Denied => EventReason::Denied,
            _ => EventReason::RenewalFailed,
        };
        let end = work.svid.as_ref().map(|svid| svid.x509.not_after());
        let left = end.and_then(|end| end.duration_since(self.clock.now()).ok());
        let stands = match left.filter(|left| left.as_secs() > 0) {
            Some(left) => {
                let left = duration::format(std::time::Duration::from_secs(left.as_secs()));
                format!("the SVID in place is valid for another {left}")
            }
            None => "the SVID in place has expired".to_owned(),
        };
        self.tell(work, reason, format!("renewal failed, {stands}: {error}"));
    }

    /// A renewal that worked after others had not.
    pub(super) fn tell_renewed(&self, work: &Work) {
        self.tell(work, EventReason::Renewed, "the SVID is renewed again".to_owned());
    }

    fn tell(&self, work: &Work, reason: EventReason, message: String) {
        let Some(spec) = &work.spec else { return };
        let pod = spec.pod.clone();
        let (namespace, name, uid) = (pod.namespace, pod.name, pod.uid);
        self.events.report(PodEvent { namespace, name, uid, reason, message });
    }
}
