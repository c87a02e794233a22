//! The keys that sign JWT-SVIDs: one set for the trust domain, with the same life as the CAs.

mod answer;
mod document;
mod entry;
mod lifecycle;
mod settings;
mod signing;
mod status;

pub(super) use self::{
    document::{StoredJwtKey, put_keys},
    entry::{JwtEntry, JwtMaterial},
};
pub use self::{settings::JwtKeySettings, signing::SigningJwtKey, status::JwtKeyStatus};
