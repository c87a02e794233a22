//! What a request needs next, by what it looks like.

use crate::k8s::{RequestFacts, names::SIGNER};

/// What a request needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is finished, or not ours.
    Leave,
    /// A decision.
    Decide,
    /// A certificate. Who approved it doesn't matter: it is decided anew.
    Sign,
}

// === impl Step ===

impl Step {
    pub(super) fn of(request: &RequestFacts) -> Self {
        let ours = request.signer_name == SIGNER;
        match (ours, request.is_finished(), request.is_approved()) {
            (false, _, _) | (_, true, _) => Self::Leave,
            (true, false, false) => Self::Decide,
            (true, false, true) => Self::Sign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::ConditionFacts;

    fn request(signer: &str, conditions: &[&str], has_certificate: bool) -> RequestFacts {
        let condition = |kind: &&str| ConditionFacts {
            kind: (*kind).to_owned(),
            reason: String::new(),
            message: String::new(),
        };
        RequestFacts {
            signer_name: signer.to_owned(),
            conditions: conditions.iter().map(condition).collect(),
            has_certificate,
            ..RequestFacts::default()
        }
    }

    #[test]
    fn each_state_has_its_step() {
        for (signer, conditions, certificate, step) in [
            (SIGNER, &[][..], false, Step::Decide),
            (SIGNER, &["Unknown"], false, Step::Decide),
            (SIGNER, &["Approved"], false, Step::Sign),
            (SIGNER, &["Approved"], true, Step::Leave),
            (SIGNER, &["Approved", "Failed"], false, Step::Leave),
            // Both can't be: then nothing is signed.
            (SIGNER, &["Approved", "Denied"], false, Step::Leave),
            (SIGNER, &["Denied"], false, Step::Leave),
            (SIGNER, &["Failed"], false, Step::Leave),
            (SIGNER, &[], true, Step::Leave),
            ("kubernetes.io/kube-apiserver-client", &["Approved"], false, Step::Leave),
            ("svid.dev/workload2", &[], false, Step::Leave),
        ] {
            let request = request(signer, conditions, certificate);
            assert_eq!(Step::of(&request), step, "{signer} {conditions:?} {certificate}");
        }
    }
}
