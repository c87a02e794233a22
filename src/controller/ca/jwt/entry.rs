//! One JWT key: its public half, perhaps the private one, and where it is in its life.

use std::{fmt, sync::Arc, time::Duration};

use super::super::{
    moment::Moment,
    stage::{Life, Stage},
};
use crate::jose::{JwtAuthority, JwtKey};

/// One JWT key and where it is in its life.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct JwtEntry {
    pub(in super::super) key: JwtMaterial,
    pub(in super::super) stage: Stage,
    /// It is believed stolen.
    pub(in super::super) tainted: bool,
    /// The longest life of what it may have signed.
    pub(in super::super) max_ttl: Duration,
    /// When it was made; of a foreign key, when we first saw it.
    pub(in super::super) made: Moment,
    /// It never signs from then on, and nothing that it signed lives then.
    pub(in super::super) end: Moment,
}

/// A JWT key, private while it may sign. Cheap to clone.
#[derive(Clone)]
pub(in super::super) struct JwtMaterial {
    /// The RFC 7638 thumbprint. It is the `kid` of every key of ours; a foreign key may have any.
    pub(in super::super) id: String,
    pub(in super::super) authority: JwtAuthority,
    pub(in super::super) private: Option<Arc<JwtKey>>,
}

// === impl JwtEntry ===

impl JwtEntry {
    /// A key that will sign.
    pub(in super::super) fn prepared(
        key: Arc<JwtKey>,
        lifetime: Duration,
        max_ttl: Duration,
        now: Moment,
    ) -> Self {
        Self {
            key: JwtMaterial::of(key),
            stage: Stage::Prepared { hurry: false, first: false },
            tainted: false,
            max_ttl,
            made: now,
            end: now.after(lifetime),
        }
    }

    /// A key that is trusted until then.
    pub(in super::super) fn foreign(
        authority: JwtAuthority,
        remove_at: Moment,
        now: Moment,
    ) -> Self {
        Self {
            key: JwtMaterial::of_authority(authority),
            stage: Stage::Foreign { remove_at },
            tainted: false,
            max_ttl: Duration::ZERO,
            made: now,
            end: remove_at,
        }
    }

    /// Where it is in its life, and what follows from that.
    pub(in super::super) fn life(&self) -> Life {
        Life {
            stage: self.stage,
            start: self.made,
            end: self.end,
            max_ttl: self.max_ttl,
            tainted: self.tainted,
            has_key: self.key.private.is_some(),
        }
    }

    /// Its `kid`.
    pub(in super::super) fn key_id(&self) -> &str {
        self.key.authority.key_id()
    }

    pub(in super::super) fn is_active(&self) -> bool {
        self.stage.is_active()
    }

    pub(in super::super) fn is_prepared(&self) -> bool {
        self.stage.is_prepared()
    }

    /// Stops it: the others learn of that within the handover.
    pub(super) fn retire(&mut self, now: Moment) {
        self.stage = self.life().retired(now);
    }

    /// Takes it out of the bundle and its private half away; it is remembered as long as something
    /// under it may live.
    pub(in super::super) fn drop_now(&mut self, now: Moment) {
        self.stage = self.life().dropped(now);
        self.key.private = None;
    }
}

// === impl JwtMaterial ===

impl JwtMaterial {
    pub(in super::super) fn of(private: Arc<JwtKey>) -> Self {
        Self { private: Some(private.clone()), ..Self::of_authority(private.authority().clone()) }
    }

    /// A key whose private half is not, or no longer, here.
    pub(in super::super) fn of_authority(authority: JwtAuthority) -> Self {
        Self { id: authority.thumbprint(), authority, private: None }
    }
}

impl PartialEq for JwtMaterial {
    fn eq(&self, other: &Self) -> bool {
        self.authority == other.authority && self.private.is_some() == other.private.is_some()
    }
}

impl fmt::Debug for JwtMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtMaterial")
            .field("authority", &self.authority)
            .field("has_key", &self.private.is_some())
            .finish_non_exhaustive()
    }
}
