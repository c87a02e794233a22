//! One replica of the controller: connected, or why not.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::link::Link;

/// A replica that was found.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) address: SocketAddr,
    state: Mutex<State>,
    /// Cancelled when it is to be called no more.
    pub(super) leave: CancellationToken,
}

#[derive(Debug)]
struct State {
    link: Option<Arc<Link>>,
    /// Why there is no link, or why the last one ended.
    trouble: Option<String>,
    /// Whether the last look still found it.
    listed: bool,
}

// === impl Replica ===

impl Replica {
    pub(super) fn new(address: SocketAddr) -> Self {
        let state = State { link: None, trouble: None, listed: true };
        Self { address, state: Mutex::new(state), leave: CancellationToken::new() }
    }

    /// The connection, where there is one, and whether it is still listed.
    pub(super) fn link(&self) -> Option<(Arc<Link>, bool)> {
        let state = self.lock();
        let link = state.link.clone().filter(|link| !link.is_closed())?;
        Some((link, state.listed))
    }

    pub(super) fn connected(&self, link: Arc<Link>) {
        let mut state = self.lock();
        state.link = Some(link);
        state.trouble = None;
    }

    /// No more calls go to it. True if that is news.
    pub(super) fn lost(&self, trouble: &str) -> bool {
        let mut state = self.lock();
        state.link = None;
        let news = state.trouble.as_deref() != Some(trouble);
        state.trouble = Some(trouble.to_owned());
        news
    }

    pub(super) fn set_listed(&self, listed: bool) {
        self.lock().listed = listed;
    }

    /// What is wrong with it, for a person.
    pub(super) fn trouble(&self) -> String {
        let state = self.lock();
        let trouble = state.trouble.as_deref().unwrap_or("not connected yet");
        format!("{}: {trouble}", self.address)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
