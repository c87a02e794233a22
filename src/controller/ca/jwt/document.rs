//! The JWT keys in the CA Secret: their public halves and lives in `state.json`, and
//! `<kid>.jwt.key` for each that may sign.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    super::{
        document::{DocumentError, SecretData, StoredStage, text},
        moment::Moment,
    },
    JwtEntry, JwtMaterial,
};
use crate::jose::{JwtAuthority, JwtKey, JwtKeyError};

/// A JWT key in `state.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct StoredJwtKey {
    jwk: Map<String, Value>,
    stage: StoredStage,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tainted: bool,
    max_ttl_seconds: u64,
    made: Moment,
    end: Moment,
}

// === impl StoredJwtKey ===

impl StoredJwtKey {
    pub(in super::super) fn of(entry: &JwtEntry) -> Self {
        Self {
            jwk: entry.key.authority.to_jwk(None),
            stage: entry.stage.into(),
            tainted: entry.tainted,
            max_ttl_seconds: entry.max_ttl.as_secs(),
            made: entry.made,
            end: entry.end,
        }
    }

    pub(in super::super) fn read(self, data: &SecretData) -> Result<JwtEntry, DocumentError> {
        let authority = JwtAuthority::from_jwk(&Value::Object(self.jwk))
            .map_err(|error| DocumentError::State(format!("a JWT key: {error}")))?;
        let mut key = JwtMaterial::of_authority(authority);
        let file = file_name(&key.id);
        let stage = self.stage.into();
        if data.contains_key(&file) || may_sign(&self.stage) {
            let private = JwtKey::from_pem(text(data, &file)?)
                .map_err(|source| DocumentError::JwtKey { id: key.id.clone(), source })?;
            if *private.authority() != key.authority {
                return Err(DocumentError::JwtKeyExchanged { id: key.id });
            }
            key.private = Some(Arc::new(private));
        }
        let max_ttl = Duration::from_secs(self.max_ttl_seconds);
        let (tainted, made, end) = (self.tainted, self.made, self.end);
        Ok(JwtEntry { key, stage, tainted, max_ttl, made, end })
    }
}

fn may_sign(stage: &StoredStage) -> bool {
    matches!(stage, StoredStage::Active { .. } | StoredStage::Prepared { .. })
}

/// Puts the private halves beside `state.json`.
pub(in super::super) fn put_keys(
    entries: &[JwtEntry],
    mut put: impl FnMut(String, &[u8]),
) -> Result<(), JwtKeyError> {
    for entry in entries {
        if let Some(private) = &entry.key.private {
            put(file_name(&entry.key.id), private.to_pem()?.as_bytes());
        }
    }
    Ok(())
}

fn file_name(id: &str) -> String {
    format!("{id}.jwt.key")
}
