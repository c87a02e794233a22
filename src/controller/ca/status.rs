//! What `svid-csi ca show` shows: `status.json` in the bundle's ConfigMap. It holds no secret.

use serde::{Deserialize, Serialize};

use super::{
    CaSettings, CaState,
    entry::{Entry, Origin},
    jwt::JwtKeyStatus,
    moment::Moment,
    request::{Action, Answer, Outcome},
    stage::Stage,
};
use crate::{id::TrustDomain, volume::duration};

/// How the CAs are, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    /// When any of it last changed.
    pub updated: Moment,
    /// The trust domain that is signed for.
    pub trust_domain: TrustDomain,
    /// For how long a root is published before it signs.
    pub propagation: String,
    /// Whether the CA comes from an upstream Secret, and from which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Every CA whose root is, or just was, in the bundle.
    pub authorities: Vec<AuthorityStatus>,
    /// Every JWT key that is, or just was, in the bundle.
    #[serde(default)]
    pub jwt_keys: Vec<JwtKeyStatus>,
    /// The next step, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<NextStep>,
    /// The next step of the JWT keys, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_jwt_step: Option<NextStep>,
    /// The last request by hand, and what became of it.
    pub last_request: Option<LastRequest>,
    /// What a person has to look at.
    pub problem: Option<String>,
}

/// One CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Of certificate and roots.
    pub id: String,
    /// Of its key: what leaves have as authorityKeyIdentifier.
    pub key_id: String,
    /// The certificate's subject.
    pub subject: String,
    /// The certificate's fingerprint.
    pub sha256: String,
    /// `prepared`, `active`, `retired` or `foreign`.
    pub state: String,
    /// `own`, `upstream`, or `root` where only the root is known.
    pub origin: String,
    /// Whether its key is believed stolen.
    pub tainted: bool,
    /// Whether its root is in the bundle.
    pub published: bool,
    /// Start of its certificate.
    pub not_before: Moment,
    /// End of its certificate.
    pub not_after: Moment,
    /// From when it signs, or signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_from: Option<Moment>,
    /// Until when it signs, or signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_until: Option<Moment>,
    /// When its root leaves the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_at: Option<Moment>,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// `prepare`, `activate` or `renew-upstream`.
    pub step: String,
    /// When.
    pub at: Moment,
}

/// A request by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRequest {
    /// Which it was.
    pub uid: String,
    /// What was to be done.
    pub action: Action,
    /// How far it is.
    pub outcome: Outcome,
    /// For a person.
    pub message: String,
    /// When it came to that.
    pub at: Moment,
}

// === impl CaStatus ===

impl CaStatus {
    pub(super) fn of(
        state: &CaState,
        settings: &CaSettings,
        problems: &[String],
        now: Moment,
    ) -> Self {
        let step = |(step, at): (&str, _)| NextStep { step: step.to_owned(), at };
        Self {
            updated: now,
            trust_domain: state.trust_domain.clone(),
            propagation: duration::format(settings.propagation),
            upstream: settings.upstream.clone(),
            authorities: state
                .entries
                .iter()
                .map(|entry| AuthorityStatus::of(entry, state, settings))
                .collect(),
            jwt_keys: state
                .jwt_keys
                .iter()
                .map(|entry| JwtKeyStatus::of(entry, state, settings))
                .collect(),
            next_step: state.next_step(settings).map(step),
            next_jwt_step: state.next_jwt_step(settings).map(step),
            last_request: state.answer.as_ref().map(LastRequest::of),
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
        }
    }

    /// As written to the ConfigMap.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// As read from the ConfigMap.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Whether only the time of the last change differs.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { updated: self.updated, ..other.clone() }
    }
}

// === impl AuthorityStatus ===

impl AuthorityStatus {
    fn of(entry: &Entry, state: &CaState, settings: &CaSettings) -> Self {
        let certificate = &entry.ca.certificate;
        let signs = match entry.stage {
            Stage::Prepared { .. } => (state.activate_at(entry, settings), None),
            Stage::Active { .. } | Stage::Retired { .. } => {
                (entry.signs().map(|signs| signs.0), entry.signs().map(|signs| signs.1))
            }
            Stage::Foreign { .. } => (None, None),
        };
        Self {
            id: entry.ca.id.clone(),
            key_id: entry.ca.key_id.clone(),
            subject: certificate.subject(),
            sha256: certificate.sha256(),
            state: entry.stage.label().to_owned(),
            origin: match entry.origin {
                Origin::Own => "own",
                Origin::Upstream => "upstream",
                Origin::Root => "root",
            }
            .to_owned(),
            tainted: entry.tainted,
            published: entry.is_published(),
            not_before: Moment::of(certificate.not_before()),
            not_after: Moment::of(certificate.not_after()),
            sign_from: signs.0,
            sign_until: signs.1,
            remove_at: entry.remove_at(),
        }
    }
}

// === impl LastRequest ===

impl LastRequest {
    /// What was under way went with the Secret that knew of it.
    pub(super) fn answer(&self) -> Answer {
        let lost = self.outcome == Outcome::Accepted;
        Answer {
            uid: self.uid.clone(),
            action: self.action,
            outcome: if lost { Outcome::Refused } else { self.outcome },
            message: match lost {
                true => "the CA Secret was exchanged meanwhile; ask again".to_owned(),
                false => self.message.clone(),
            },
            at: self.at,
            waits_for: None,
        }
    }

    pub(super) fn of(answer: &Answer) -> Self {
        Self {
            uid: answer.uid.clone(),
            action: answer.action,
            outcome: answer.outcome,
            message: answer.message.clone(),
            at: answer.at,
        }
    }
}
