//! The CA Secret's content: `state.json`; for each CA `<id>.crt`, `<id>.key` while it may sign, and
//! `<id>.roots`; and for each JWT key `<kid>.jwt.key` while it may sign.

use std::{collections::BTreeMap, str, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    CaState,
    entry::{Entry, Material, Origin},
    jwt::{JwtEntry, StoredJwtKey, put_keys},
    moment::Moment,
    request::Answer,
    stage::Stage,
    state::{Home, Refused, Seal},
};
use crate::{
    id::TrustDomain,
    jose::JwtKeyError,
    pki::{
        Authority, AuthorityError, Certificate, PkiError, certificates_from_pem,
        certificates_to_pem,
    },
};

/// The data of a Secret.
pub(super) type SecretData = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Why the CA Secret can't be used. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Something was taken out.
    #[error("{0} is missing")]
    Missing(String),
    /// Bytes where text belongs.
    #[error("{0} is not text")]
    NotText(String),
    /// Not JSON, or of another shape.
    #[error("{STATE}: {0}")]
    State(String),
    /// Written by a later version.
    #[error("{STATE} has version {0}; this program knows version {VERSION}")]
    Version(u32),
    /// Another trust domain's.
    #[error("it belongs to trust domain {found}, and the controller is set to {expected}")]
    TrustDomain {
        /// The Secret's.
        found: TrustDomain,
        /// Ours.
        expected: TrustDomain,
    },
    /// A damaged certificate.
    #[error("{file}: {source}")]
    Certificate {
        /// Which.
        file: String,
        /// What is wrong with it.
        source: PkiError,
    },
    /// A CA that can't be used.
    #[error("CA {id}: {source}")]
    Authority {
        /// Which.
        id: String,
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// A damaged JWT key.
    #[error("JWT key {id}: {source}")]
    JwtKey {
        /// Which.
        id: String,
        /// What is wrong with it.
        source: JwtKeyError,
    },
    /// A JWT key was exchanged.
    #[error("JWT key {id}: its private key is not the one that it was stored with")]
    JwtKeyExchanged {
        /// Which.
        id: String,
    },
    /// Certificates were exchanged.
    #[error("CA {id}: its certificate or roots are not those that it was stored with")]
    Exchanged {
        /// Which.
        id: String,
    },
    /// More than one CA signs, or the same is there twice.
    #[error("{STATE}: {0}")]
    Contradiction(&'static str),
}

/// Version 1 had no JWT keys. Whoever knows no more than that must not write this one: it would
/// take the keys out of the bundle, and what they signed would fail.
const VERSION: u32 = 2;
const OLDEST: u32 = 1;
const STATE: &str = "state.json";
const SEAL: &str = "seal.key";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    trust_domain: TrustDomain,
    sequence: u64,
    bundle: Vec<String>,
    authorities: Vec<Stored>,
    #[serde(default)]
    jwt_keys: Vec<StoredJwtKey>,
    #[serde(default)]
    published: BTreeMap<String, Moment>,
    #[serde(default)]
    refused: BTreeMap<String, Refused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    #[serde(default)]
    home: Home,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restored: Option<Moment>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    id: String,
    origin: StoredOrigin,
    stage: StoredStage,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tainted: bool,
    max_ttl_seconds: u64,
    anchors: Vec<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredOrigin {
    Own,
    Upstream,
    Root,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum StoredStage {
    Prepared {
        hurry: bool,
        first: bool,
    },
    Active {
        sign_from: Moment,
        first: bool,
    },
    Retired {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sign_from: Option<Moment>,
        sign_until: Moment,
        remove_at: Moment,
        dropped: bool,
    },
    Foreign {
        remove_at: Moment,
    },
}

/// The Secret's data for this state.
pub(super) fn encode(state: &CaState) -> Result<SecretData, JwtKeyError> {
    let document = Document {
        version: VERSION,
        trust_domain: state.trust_domain.clone(),
        sequence: state.sequence,
        bundle: state.bundle.clone(),
        authorities: state.entries.iter().map(Stored::of).collect(),
        jwt_keys: state.jwt_keys.iter().map(StoredJwtKey::of).collect(),
        published: state.published.clone(),
        refused: state.refused.clone(),
        answer: state.answer.clone(),
        home: state.home.clone(),
        restored: state.restored,
    };
    let mut data = SecretData::new();
    let mut put = |name: String, bytes: &[u8]| {
        data.insert(name, Zeroizing::new(bytes.to_vec()));
    };
    // Strings, numbers and times of this age always serialize.
    put(STATE.to_owned(), &serde_json::to_vec_pretty(&document).unwrap_or_default());
    put(SEAL.to_owned(), state.seal.key());
    for entry in &state.entries {
        let Material { id, certificate, chain, roots, authority, .. } = &entry.ca;
        let certificates = match chain.is_empty() {
            true => std::slice::from_ref(certificate),
            false => chain,
        };
        put(format!("{id}.crt"), certificates_to_pem(certificates).as_bytes());
        put(format!("{id}.roots"), certificates_to_pem(roots).as_bytes());
        if let Some(authority) = authority {
            put(format!("{id}.key"), authority.key_pem().as_bytes());
        }
    }
    put_keys(&state.jwt_keys, put)?;
    Ok(data)
}

/// The state in the Secret's data. A CA whose time is over or yet to come is read as well.
pub(super) fn decode(
    data: &SecretData,
    trust_domain: &TrustDomain,
    now: Moment,
) -> Result<CaState, DocumentError> {
    let document: Document = serde_json::from_slice(bytes(data, STATE)?)
        .map_err(|error| DocumentError::State(error.to_string()))?;
    if !(OLDEST..=VERSION).contains(&document.version) {
        return Err(DocumentError::Version(document.version));
    }
    if document.trust_domain != *trust_domain {
        let (found, expected) = (document.trust_domain, trust_domain.clone());
        return Err(DocumentError::TrustDomain { found, expected });
    }
    let seal = Seal::of(Zeroizing::new(bytes(data, SEAL)?.to_vec()))
        .ok_or(DocumentError::Contradiction("the seal has a wrong length"))?;
    let mut entries: Vec<Entry> = Vec::new();
    for stored in document.authorities {
        let entry = stored.read(data, trust_domain, now)?;
        if entries.iter().any(|known| known.ca.id == entry.ca.id) {
            return Err(DocumentError::Contradiction("a CA is there twice"));
        }
        if entry.is_active() && entries.iter().any(Entry::is_active) {
            return Err(DocumentError::Contradiction("two CAs are active"));
        }
        entries.push(entry);
    }
    let mut jwt_keys: Vec<JwtEntry> = Vec::new();
    for stored in document.jwt_keys {
        let entry = stored.read(data)?;
        if jwt_keys.iter().any(|known| known.key.id == entry.key.id) {
            return Err(DocumentError::Contradiction("a JWT key is there twice"));
        }
        if entry.is_active() && jwt_keys.iter().any(JwtEntry::is_active) {
            return Err(DocumentError::Contradiction("two JWT keys are active"));
        }
        jwt_keys.push(entry);
    }
    if entries.is_empty() {
        return Err(DocumentError::Contradiction("there is no CA"));
    }
    Ok(CaState {
        trust_domain: document.trust_domain,
        sequence: document.sequence,
        bundle: document.bundle,
        entries,
        jwt_keys,
        published: document.published,
        refused: document.refused,
        answer: document.answer,
        seal,
        home: document.home,
        restored: document.restored,
    })
}

fn bytes<'a>(data: &'a SecretData, name: &str) -> Result<&'a [u8], DocumentError> {
    data.get(name)
        .map(|bytes| bytes.as_slice())
        .ok_or_else(|| DocumentError::Missing(name.to_owned()))
}

pub(super) fn text<'a>(data: &'a SecretData, name: &str) -> Result<&'a str, DocumentError> {
    str::from_utf8(bytes(data, name)?).map_err(|_cause| DocumentError::NotText(name.to_owned()))
}

fn certificates(data: &SecretData, file: &str) -> Result<Vec<Certificate>, DocumentError> {
    certificates_from_pem(text(data, file)?)
        .map_err(|source| DocumentError::Certificate { file: file.to_owned(), source })
}

// === impl StoredStage ===

impl From<Stage> for StoredStage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Prepared { hurry, first } => Self::Prepared { hurry, first },
            Stage::Active { sign_from, first } => Self::Active { sign_from, first },
            Stage::Retired { sign_from, sign_until, remove_at, dropped } => {
                Self::Retired { sign_from, sign_until, remove_at, dropped }
            }
            Stage::Foreign { remove_at } => Self::Foreign { remove_at },
        }
    }
}

impl From<StoredStage> for Stage {
    fn from(stage: StoredStage) -> Self {
        match stage {
            StoredStage::Prepared { hurry, first } => Self::Prepared { hurry, first },
            StoredStage::Active { sign_from, first } => Self::Active { sign_from, first },
            StoredStage::Retired { sign_from, sign_until, remove_at, dropped } => {
                Self::Retired { sign_from, sign_until, remove_at, dropped }
            }
            StoredStage::Foreign { remove_at } => Self::Foreign { remove_at },
        }
    }
}

// === impl Stored ===

impl Stored {
    fn of(entry: &Entry) -> Self {
        Self {
            id: entry.ca.id.clone(),
            origin: match entry.origin {
                Origin::Own => StoredOrigin::Own,
                Origin::Upstream => StoredOrigin::Upstream,
                Origin::Root => StoredOrigin::Root,
            },
            stage: entry.stage.into(),
            tainted: entry.tainted,
            max_ttl_seconds: entry.max_ttl.as_secs(),
            anchors: entry.ca.anchors.clone(),
        }
    }

    fn read(
        self,
        data: &SecretData,
        trust_domain: &TrustDomain,
        now: Moment,
    ) -> Result<Entry, DocumentError> {
        let ca = self.material(data, trust_domain, now)?;
        if ca.id != self.id {
            return Err(DocumentError::Exchanged { id: self.id });
        }
        let stage = self.stage.into();
        let origin = match self.origin {
            StoredOrigin::Own => Origin::Own,
            StoredOrigin::Upstream => Origin::Upstream,
            StoredOrigin::Root => Origin::Root,
        };
        let max_ttl = Duration::from_secs(self.max_ttl_seconds);
        Ok(Entry { ca, stage, tainted: self.tainted, origin, max_ttl })
    }

    fn material(
        &self,
        data: &SecretData,
        trust_domain: &TrustDomain,
        now: Moment,
    ) -> Result<Material, DocumentError> {
        let id = &self.id;
        let file = format!("{id}.crt");
        let given = certificates(data, &file)?;
        let key = format!("{id}.key");
        let roots = format!("{id}.roots");
        let needed =
            matches!(self.stage, StoredStage::Active { .. } | StoredStage::Prepared { .. });
        if data.contains_key(&key) || needed {
            let load = |at: Moment| {
                Ok(Authority::from_pem(
                    trust_domain,
                    text(data, &file)?,
                    text(data, &key)?,
                    Some(text(data, &roots)?),
                    at.time(),
                ))
            };
            let authority = match load(now)? {
                // Whether its time has come is asked for each signature.
                Err(AuthorityError::Expired { .. } | AuthorityError::NotYetValid { .. }) => {
                    let start = given.iter().map(Certificate::not_before).max();
                    load(start.map_or(now, Moment::of))?
                }
                loaded => loaded,
            };
            let authority =
                authority.map_err(|source| DocumentError::Authority { id: id.clone(), source })?;
            return Ok(Material::of(Arc::new(authority)));
        }
        let certificate = given.first().ok_or(DocumentError::Missing(file))?.clone();
        let chain = if certificate.is_self_signed() { Vec::new() } else { given };
        let roots = certificates(data, &roots)?;
        Ok(Material::assemble(certificate, chain, roots, self.anchors.clone(), None))
    }
}
