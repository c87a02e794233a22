//! What somebody else may do: SubjectAccessReview.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::{ApiError, Cluster, ObjectName, call};

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A ServiceAccount.
    Account(ObjectName),
    /// Every ServiceAccount, whatever it may besides.
    EveryAccount,
}

// === impl Cluster ===

impl Cluster {
    /// Whether this subject may approve requests for the signer that cert-manager calls so
    /// (`signers.cert-manager.io`).
    pub async fn may_approve(&self, who: &Subject, signer: &str) -> Result<bool, ApiError> {
        let api: Api<SubjectAccessReview> = self.cluster_wide();
        let attributes = ResourceAttributes {
            group: Some(super::CERT_MANAGER_GROUP.to_owned()),
            resource: Some("signers".to_owned()),
            verb: Some("approve".to_owned()),
            name: Some(signer.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec { resource_attributes: Some(attributes), ..who.spec() },
            ..SubjectAccessReview::default()
        };
        let params = PostParams::default();
        let answer = call("ask what others may approve", api.create(&params, &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

// === impl Subject ===

impl Subject {
    fn spec(&self) -> SubjectAccessReviewSpec {
        let everyone = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
        let mut groups = Vec::from(everyone);
        let user = match self {
            Self::Account(account) => {
                groups.push(format!("system:serviceaccounts:{}", account.namespace));
                format!("system:serviceaccount:{}:{}", account.namespace, account.name)
            }
            Self::EveryAccount => "system:anonymous".to_owned(),
        };
        SubjectAccessReviewSpec {
            user: Some(user),
            groups: Some(groups),
            ..SubjectAccessReviewSpec::default()
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(account) => write!(f, "the ServiceAccount {account}"),
            Self::EveryAccount => f.write_str("every ServiceAccount"),
        }
    }
}
