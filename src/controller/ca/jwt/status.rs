//! A JWT key in `status.json`.

use serde::{Deserialize, Serialize};

use super::{
    super::{CaSettings, CaState, moment::Moment, stage::Stage},
    JwtEntry,
};

/// One JWT key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtKeyStatus {
    /// Its `kid`.
    pub key_id: String,
    /// `rsa-2048`, `ecdsa-p256` or `ecdsa-p384`; of a foreign key also others.
    pub algorithm: String,
    /// `prepared`, `active`, `retired` or `foreign`.
    pub state: String,
    /// Whether it is believed stolen.
    pub tainted: bool,
    /// Whether it is in the bundle.
    pub published: bool,
    /// When it was made, or of a foreign key, when it was first seen.
    pub made: Moment,
    /// When it ends.
    pub not_after: Moment,
    /// From when it signs, or signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_from: Option<Moment>,
    /// Until when it signs, or signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_until: Option<Moment>,
    /// When it leaves the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_at: Option<Moment>,
}

// === impl JwtKeyStatus ===

impl JwtKeyStatus {
    pub(in super::super) fn of(entry: &JwtEntry, state: &CaState, settings: &CaSettings) -> Self {
        let signs = entry.life().signs();
        let sign_from = match entry.stage {
            Stage::Prepared { .. } => state.activate_jwt_at(entry, settings),
            _ => signs.map(|signs| signs.0),
        };
        Self {
            key_id: entry.key_id().to_owned(),
            algorithm: entry.key.authority.describe(),
            state: entry.stage.label().to_owned(),
            tainted: entry.tainted,
            published: entry.stage.is_published(),
            made: entry.made,
            not_after: entry.end,
            sign_from,
            sign_until: signs.map(|signs| signs.1),
            remove_at: entry.stage.remove_at(),
        }
    }
}
