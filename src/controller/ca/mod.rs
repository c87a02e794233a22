//! The CA: its life from one key to the next, where it is kept, and who may sign with it here.

mod answer;
mod document;
mod entry;
mod keyring;
mod leader;
mod lifecycle;
mod moment;
mod publish;
mod request;
mod restore;
mod retiring;
mod schedule;
mod settings;
mod signing;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod upstream;

pub use self::{
    document::DocumentError,
    keyring::{Keyring, KeyringStatus},
    moment::Moment,
    request::{Action, Answer, Outcome, Request},
    settings::{CaSettings, HANDOVER, PemConfigMap, RETIRING, SKEW},
    signing::{NotReady, SigningAuthority},
    state::CaState,
    status::{AuthorityStatus, CaStatus, LastRequest, NextStep},
};
