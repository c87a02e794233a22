//! Who the API server takes us for: SelfSubjectReview.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, api::PostParams};

use super::{ApiError, Cluster, call};

/// What the API server knows about whoever holds our token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhoAmI {
    /// As in `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// As in `authentication.kubernetes.io/node-uid`.
    pub extra: BTreeMap<String, Vec<String>>,
}

// === impl Cluster ===

impl Cluster {
    /// Asks the API server who we are. Everybody may.
    pub async fn who_am_i(&self) -> Result<WhoAmI, ApiError> {
        let api: Api<SelfSubjectReview> = self.cluster_wide();
        let (params, review) = (PostParams::default(), SelfSubjectReview::default());
        let answer = call("ask who we are", api.create(&params, &review)).await?;
        let user = answer.status.unwrap_or_default().user_info.unwrap_or_default();
        let (username, extra) = (user.username, user.extra);
        Ok(WhoAmI { username: username.unwrap_or_default(), extra: extra.unwrap_or_default() })
    }
}

// === impl WhoAmI ===

impl WhoAmI {
    /// The value of a key that has exactly one.
    pub fn extra(&self, key: &str) -> Option<&str> {
        match self.extra.get(key).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Some(value),
            _ => None,
        }
    }
}
