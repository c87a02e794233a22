//! A leader's CAs through time, for tests of those who sign with them.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Leader;
use crate::{
    clock::Clock,
    controller::ca::{Keyring, Moment},
};

/// CAs as a leader makes them, and a replica's view of them.
pub(crate) struct Lineage {
    leader: Leader,
    pub(crate) keyring: std::sync::Arc<Keyring>,
}

impl Lineage {
    /// When the first CA begins.
    pub(crate) fn start() -> SystemTime {
        super::start().time()
    }

    /// With nothing seen yet.
    pub(crate) fn new(clock: std::sync::Arc<dyn Clock>) -> Self {
        let leader = Leader::new();
        Self { keyring: Keyring::new(leader.settings.clone(), clock), leader }
    }

    /// The leader does what is due, and the replica sees it.
    pub(crate) fn at(&mut self, now: SystemTime) {
        self.leader.at(Moment::of(now));
        self.keyring.heard(self.leader.state.clone(), Instant::now());
        if let Some(published) = &self.leader.world.published {
            self.keyring.saw_bundle(&published.bundle, now);
        }
    }

    /// How long a CA lives.
    pub(crate) fn lifetime(&self) -> std::time::Duration {
        self.leader.settings.lifetime
    }
}
