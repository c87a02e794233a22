//! Volumes whose SVIDs come with their keys from elsewhere: followed, taken when they change, and
//! believed no more than a signature is.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout_at};

use super::{
    Node, NodeError,
    issuer::{Issued, Issuer, Patience, SIGN_TIMEOUT, Wish},
    metrics::observe,
    volume::{Svid, Volume, Work},
};
use crate::{
    class::Class,
    id::SpiffeId,
    pki::RenewalPolicy,
    signer::{Assigned, Given, HandedOut, Handout, KeyedSvid, SignError},
    trust::TrustBundles,
};

/// Over how long volumes take what they are given at one time: an agent that was restarted gives
/// every volume of its node another SVID.
const SPREAD: Duration = Duration::from_secs(5);
/// By how much a lifetime may be longer than was asked for: whoever signs begins it before its own
/// time, for the sake of other clocks.
const BACKDATED: Duration = Duration::from_secs(60);

// === impl Node ===

impl Node {
    /// Begins to follow what a volume's pod is given, where that is how it has its SVIDs. What
    /// changes makes the volume due soon.
    pub(super) fn subscribe(&self, volume: &Volume, work: &mut Work) {
        let (Some(spec), None) = (&work.spec, &work.handout) else { return };
        work.handout = self.issuer.signer.hand_out(&volume.id, &spec.pod);
        let Some(handout) = &work.handout else {
            work.federates_with = None;
            return;
        };
        let mut given = handout.follow();
        let (id, rotator, clock) = (volume.id.clone(), self.rotator.clone(), self.clock.clone());
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            let follow = async {
                while given.changed().await.is_ok() {
                    let seed = id.renewal_seed(&serial(&given.borrow_and_update()));
                    let wait = SPREAD.mul_f64(RenewalPolicy::fraction(&seed));
                    rotator.schedule(id.clone(), clock.now() + wait);
                }
            };
            tokio::select! {
                () = follow => {}
                () = ending.cancelled() => {}
            }
        });
    }

    /// Whether the volume's pod is given something else now than the SVID on the volume, or is
    /// refused. While nobody knows, what is there stands.
    pub(super) fn is_superseded(&self, work: &Work) -> bool {
        let (Some(handout), Some(held)) = (&work.handout, &work.svid) else { return false };
        match handout.current() {
            Ok(given) => {
                let next = self.wanted(work).and_then(|id| given.choose(&id, Some(held.x509.id())));
                next.is_some_and(|next| !is_the_same(next, held))
            }
            Err(error) => error.class() == Class::Denied,
        }
    }

    /// Bundles as the volume's pod may see them: the federated trust domains that go with what it is
    /// given, or was last.
    pub(super) fn seen_by(&self, work: &mut Work, bundles: Arc<TrustBundles>) -> Arc<TrustBundles> {
        let Some(handout) = &work.handout else { return bundles };
        if let Ok(given) = handout.current()
            && work.federates_with.as_deref() != Some(&given.federates_with)
        {
            work.federates_with = Some(Arc::new(given.federates_with.clone()));
        }
        match &work.federates_with {
            Some(domains) => self.issuer.bundles.view(&bundles, domains),
            None => self.issuer.bundles.view(&bundles, &BTreeSet::new()),
        }
    }

    /// Whether the volume's pod is given something now.
    pub(super) fn is_given(&self, work: &Work) -> bool {
        work.handout.as_ref().is_some_and(|handout| handout.current().is_ok())
    }

    /// The identity that the volume would have if nobody assigned another.
    pub(super) fn wanted(&self, work: &Work) -> Option<SpiffeId> {
        self.identity(work.spec.as_ref()?, None).ok()
    }
}

fn is_the_same(given: &KeyedSvid, held: &Svid) -> bool {
    given.x509 == held.x509 && given.key.spki_der() == held.key.spki_der()
}

fn serial(given: &Given) -> String {
    let first = given.as_ref().ok().and_then(|given| given.svids.first());
    first.map(|svid| svid.x509.serial_hex().to_owned()).unwrap_or_default()
}

// === impl Issuer ===

impl Issuer {
    /// What the volume's pod is given, verified as whatever is signed.
    pub(super) async fn take(
        &self,
        wish: &Wish<'_>,
        handout: &Handout,
        wanted: &SpiffeId,
        deadline: Instant,
    ) -> Result<Issued, NodeError> {
        let started = Instant::now();
        let given = self.given(handout, wish.patience, deadline).await?;
        observe(&self.metrics.sign_seconds, started.elapsed());
        let chosen = given.choose(wanted, Some(&wish.asked.id)).ok_or(NodeError::Panicked)?;
        if wish.used == Some(chosen.key.spki_der()) {
            // Where the agent is away, that is why.
            self.signer.status().ready?;
            return Err(not_renewed(chosen.x509.not_after(), self.clock.now()).into());
        }
        let found =
            Assigned { id: chosen.x509.id().clone(), key_algorithm: chosen.key.algorithm() };
        if !found.is_possible(wish.asked.id.trust_domain()) {
            let message =
                format!("the agent gives the pod {}, which no workload here has", found.id);
            return Err(SignError::new(Class::Internal, message).into());
        }
        meets(wish, chosen)?;
        let (x509, key) = (chosen.x509.clone(), chosen.key.clone());
        self.waits_for_its_time(&x509).await?;
        let bundles = self.trusted_soon(&x509, &found.id, key.spki_der()).await?;
        let assigned = (found != wish.asked).then_some(found);
        Ok(Issued { svid: Svid { x509, key }, bundles, assigned })
    }

    async fn given(
        &self,
        handout: &Handout,
        patience: Patience,
        deadline: Instant,
    ) -> Result<Arc<HandedOut>, NodeError> {
        if patience == Patience::TriesOnce {
            return Ok(handout.current()?);
        }
        let settled = tokio::select! {
            settled = timeout_at(deadline, handout.settled()) => settled,
            () = self.ending.cancelled() => return Err(NodeError::ShuttingDown),
        };
        match settled.unwrap_or_else(|_late| handout.current()) {
            Ok(given) => Ok(given),
            Err(error) if error.class() == Class::Unavailable => {
                // It knows more than the silence of one stream.
                let error = self.signer.status().ready.err().unwrap_or(error);
                Err(NodeError::SignerAway { error, seconds: SIGN_TIMEOUT.as_secs() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Nothing but time or its server is missing: the agent has not renewed what it gave.
fn not_renewed(end: SystemTime, now: SystemTime) -> SignError {
    let left = end.duration_since(now).unwrap_or_default().as_secs();
    let message = format!(
        "the agent still gives the same SVID, which ends in {left} s; does it reach its server?"
    );
    SignError::new(Class::Unavailable, message)
}

/// Whether what was given is what the pod asked for: whoever gives it does not know that.
fn meets(wish: &Wish<'_>, given: &KeyedSvid) -> Result<(), SignError> {
    let (spec, x509) = (wish.spec, &given.x509);
    let unmet = |attribute: &str, asked: String, found: String, entry: &str| {
        let message = format!(
            "csi.svid.dev/{attribute} asks for {asked}, and SPIRE gives {}: {found}; {entry}, or \
             leave the attribute out",
            x509.id()
        );
        Err(SignError::new(Class::Invalid, message))
    };
    let algorithm = given.key.algorithm();
    if spec.explicit_key_algorithm && algorithm != spec.key_algorithm {
        let (asked, found) = (spec.key_algorithm.to_string(), algorithm.to_string());
        let entry = "set workload_x509_svid_key_type of the agent";
        return unmet("key-algorithm", asked, found, entry);
    }
    let lifetime = x509.not_after().duration_since(x509.not_before()).unwrap_or_default();
    if spec.explicit_ttl && lifetime > spec.ttl + BACKDATED {
        let asked = format!("{} s at most", spec.ttl.as_secs());
        let found = format!("{} s", lifetime.as_secs());
        return unmet("ttl", asked, found, "set x509SVIDTTL of its registration entry");
    }
    let has = |name: &str| x509.leaf().dns_sans().iter().any(|found| found == name);
    if let Some(missing) = spec.dns_names.iter().find(|name| !has(name.as_str())) {
        let found = format!("none such but {:?}", x509.leaf().dns_sans());
        let entry = "add it to its registration entry";
        return unmet("dns-names", missing.as_str().to_owned(), found, entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
