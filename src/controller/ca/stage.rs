//! The life of a key that signs, be it a CA's or one for JWT-SVIDs: the same rules hold for both.

use std::time::Duration;

use super::{
    moment::Moment,
    settings::{HANDOVER, SKEW},
};

/// Where a CA or a JWT key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In the bundle, and signs later.
    Prepared {
        /// As soon as it has been published for long enough.
        hurry: bool,
        /// Nobody trusts anything yet: as soon as it is published.
        first: bool,
    },
    /// Signs.
    Active {
        sign_from: Moment,
        /// Nobody trusted anything before it.
        first: bool,
    },
    /// Signs no longer, and stays in the bundle for what it has signed.
    Retired {
        /// Nothing for a root or a public key of which there was no private key.
        sign_from: Option<Moment>,
        sign_until: Moment,
        /// When nothing that it signed is left.
        remove_at: Moment,
        /// Taken out of the bundle by force.
        dropped: bool,
    },
    /// Trusted, and we never had its private key.
    Foreign { remove_at: Moment },
}

/// Where a key is in its life, and all that its next steps follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) stage: Stage,
    /// When it was made, or its certificate begins.
    pub(super) start: Moment,
    /// It never signs from then on, and nothing that it signed lives then.
    pub(super) end: Moment,
    /// The longest life of what it may have signed.
    pub(super) max_ttl: Duration,
    /// It is believed stolen.
    pub(super) tainted: bool,
    /// Whether the private key is here.
    pub(super) has_key: bool,
}

// === impl Stage ===

impl Stage {
    /// The name in `status.json` and in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Prepared { .. } => "prepared",
            Self::Active { .. } => "active",
            Self::Retired { .. } => "retired",
            Self::Foreign { .. } => "foreign",
        }
    }

    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Active { .. })
    }

    pub(super) fn is_prepared(self) -> bool {
        matches!(self, Self::Prepared { .. })
    }

    /// Whether it is in the bundle.
    pub(super) fn is_published(self) -> bool {
        !matches!(self, Self::Retired { dropped: true, .. })
    }

    /// Whether nobody trusted anything before it.
    pub(super) fn is_first(self) -> bool {
        matches!(self, Self::Prepared { first: true, .. } | Self::Active { first: true, .. })
    }

    /// Says whether nobody trusts anything before it, if it signs or will.
    pub(super) fn set_first(&mut self, yes: bool) {
        if let Self::Prepared { first, .. } | Self::Active { first, .. } = self {
            *first = yes;
        }
    }

    /// When nothing that it signed is left.
    pub(super) fn remove_at(self) -> Option<Moment> {
        match self {
            Self::Retired { remove_at, .. } | Self::Foreign { remove_at } => Some(remove_at),
            Self::Prepared { .. } | Self::Active { .. } => None,
        }
    }
}

// === impl Life ===

impl Life {
    /// From when to when the key may be used.
    pub(super) fn signs(&self) -> Option<(Moment, Moment)> {
        let (from, until) = match self.stage {
            Stage::Active { sign_from, .. } => (sign_from, self.end),
            Stage::Retired { sign_from, sign_until, .. } => (sign_from?, sign_until),
            Stage::Prepared { .. } | Stage::Foreign { .. } => return None,
        };
        Some((from, until.min(self.end)))
    }

    /// Whether it can sign something now, the bundle apart.
    pub(super) fn is_alive(&self, now: Moment) -> bool {
        self.has_key && now < self.end
    }

    /// This share of its life, in sixths.
    pub(super) fn sixths(&self, count: u64) -> Moment {
        self.start.after(Duration::from_secs(self.end.since(self.start).as_secs() * count / 6))
    }

    /// Whether the next has to be there: at half of its life.
    pub(super) fn wants_a_next(&self, now: Moment) -> bool {
        self.tainted || !self.is_alive(now) || now >= self.sixths(3)
    }

    /// From when a prepared key that is in the bundle since then may sign.
    pub(super) fn usable_at(&self, since: Moment, propagation: Duration) -> Moment {
        match self.stage {
            Stage::Prepared { first: true, .. } => since,
            _ => since.after(propagation),
        }
    }

    /// When a prepared key that may be used from then on begins to sign: it waits for ⅔ of the
    /// active one's life unless there is a reason to hurry.
    pub(super) fn activate_at(&self, usable: Moment, active: Option<&Self>) -> Moment {
        let hurry = matches!(self.stage, Stage::Prepared { hurry: true, .. });
        let wait = active
            .filter(|active| !hurry && !active.tainted && active.has_key)
            .map(|active| active.sixths(4).min(active.end));
        wait.map_or(usable, |at| at.max(usable))
    }

    /// The stage of an active key that is stopped: the others learn of that within the handover.
    pub(super) fn retired(&self, now: Moment) -> Stage {
        let Stage::Active { sign_from, .. } = self.stage else { return self.stage };
        let sign_until = now.after(HANDOVER).min(self.end);
        // Nothing outlives the end.
        let remove_at = sign_until.after(self.max_ttl + SKEW).min(self.end.after(SKEW));
        Stage::Retired { sign_from: Some(sign_from), sign_until, remove_at, dropped: false }
    }

    /// The stage of a key that is taken out of the bundle by force.
    pub(super) fn dropped(&self, now: Moment) -> Stage {
        let over = now.after(self.max_ttl + SKEW);
        match self.stage {
            Stage::Retired { sign_from, sign_until, remove_at, .. } => Stage::Retired {
                sign_from,
                sign_until: sign_until.min(now),
                remove_at,
                dropped: true,
            },
            Stage::Foreign { remove_at } => {
                Stage::Retired { sign_from: None, sign_until: now, remove_at, dropped: true }
            }
            Stage::Active { sign_from, .. } => Stage::Retired {
                sign_from: Some(sign_from),
                sign_until: now,
                remove_at: over,
                dropped: true,
            },
            stage @ Stage::Prepared { .. } => stage,
        }
    }

    /// Whether the private key is of no use to anyone any more.
    pub(super) fn signed_its_last(&self, now: Moment) -> bool {
        matches!(self.stage, Stage::Retired { sign_until, .. } if now >= sign_until.after(SKEW))
    }

    /// Whether nothing needs it in the bundle. The leader's clock may be ahead of the verifiers'.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        match self.stage {
            Stage::Retired { remove_at, .. } | Stage::Foreign { remove_at } => {
                now >= remove_at.after(SKEW)
            }
            Stage::Prepared { .. } => now >= self.end,
            Stage::Active { .. } => false,
        }
    }

    /// Whether nodes are to be told that it is stolen: nobody signs with it, anywhere.
    pub(super) fn is_stolen_and_silent(&self, now: Moment) -> bool {
        self.tainted
            && !self.stage.is_prepared()
            && self.signs().is_none_or(|(_, until)| now >= until)
    }
}
