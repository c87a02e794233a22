//! The CA: its life from one key to the next, where it is kept, and who may sign with it here.

mod answer;
mod entry;
mod keyring;
mod lifecycle;
mod moment;
mod request;
mod schedule;
mod settings;
mod signing;
mod state;

pub use self::{
    keyring::{Keyring, KeyringStatus},
    moment::Moment,
    request::{Action, Answer, Outcome, Request},
    settings::{CaSettings, HANDOVER, PemConfigMap, RETIRING, SKEW},
    signing::{NotReady, SigningAuthority},
    state::CaState,
};
