//! The CA and the JWT keys: their life from one key to the next, where they are kept, and who may
//! sign with them here.

mod answer;
mod document;
mod entry;
mod jwt;
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
mod stage;
mod state;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod upstream;

pub use self::{
    document::DocumentError,
    jwt::{JwtKeySettings, JwtKeyStatus, SigningJwtKey},
    keyring::{JwtKeysStatus, Keyring, KeyringStatus},
    moment::Moment,
    request::{Action, Answer, Outcome, Request},
    settings::{CaSettings, HANDOVER, PemConfigMap, RETIRING, SKEW},
    signing::{NotReady, SigningAuthority},
    state::CaState,
    status::{AuthorityStatus, CaStatus, LastRequest, NextStep},
};
