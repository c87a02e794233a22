//! What the API server says of ServiceAccount tokens: the keys that it signs them with, and its
//! verdict on one (TokenReview).

use http::Request;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, api::PostParams};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{ApiError, Cluster, WhoAmI, call};

/// What the API server publishes about its ServiceAccount tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedTokenKeys {
    /// The claim `iss` of the tokens that it issues.
    pub issuer: String,
    /// Public keys, each a JWK (RFC 7517).
    pub keys: Vec<Value>,
}

/// A token that the API server takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviewedToken {
    /// Whose it is.
    pub user: WhoAmI,
    /// That account's UID.
    pub uid: String,
    /// Those of the audiences asked for that it is for.
    pub audiences: Vec<String>,
}

/// Of `/.well-known/openid-configuration`. Where it says that the keys are is not used: they are had
/// from the API server itself.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// Of `/openid/v1/jwks`.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

// === impl Cluster ===

impl Cluster {
    /// The keys that ServiceAccount tokens are signed with now. By default every ServiceAccount may
    /// ask (ClusterRole `system:service-account-issuer-discovery`).
    pub async fn token_keys(&self) -> Result<PublishedTokenKeys, ApiError> {
        let Discovery { issuer } =
            self.get("read the issuer of tokens", "/.well-known/openid-configuration").await?;
        let Jwks { keys } = self.get("read the keys of tokens", "/openid/v1/jwks").await?;
        Ok(PublishedTokenKeys { issuer, keys })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: &'static str,
    ) -> Result<T, ApiError> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| ApiError::setup("for token keys", &error))?;
        call(doing, self.client().request(request)).await
    }

    /// Asks the API server about a token, for this audience; nothing if it takes it for none of its
    /// own, with its reason.
    pub async fn review_token(
        &self,
        token: &str,
        audience: &str,
    ) -> Result<Result<ReviewedToken, String>, ApiError> {
        let api: Api<TokenReview> = self.cluster_wide();
        let audiences = Some(vec![audience.to_owned()]);
        let spec = TokenReviewSpec { audiences, token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let answer = call("review a token", api.create(&params, &review)).await?;
        let status = answer.status.unwrap_or_default();
        if !status.authenticated.unwrap_or_default() {
            return Ok(Err(status.error.unwrap_or_default()));
        }
        let user = status.user.unwrap_or_default();
        Ok(Ok(ReviewedToken {
            uid: user.uid.unwrap_or_default(),
            user: WhoAmI {
                username: user.username.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            },
            audiences: status.audiences.unwrap_or_default(),
        }))
    }
}
