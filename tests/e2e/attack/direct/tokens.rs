//! Tokens of every kind: of the API server, by TokenRequest, and bent ones.

use std::fs;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE};
use serde_json::{Value, json};

use super::{Credentials, Direct};
use crate::{pod::Pod, set::openssl};

/// Of the tokens that the controller takes.
pub const AUDIENCE: &str = "svid.dev";

// === impl Direct ===

impl Direct<'_> {
    /// As an administrator gets one: of a ServiceAccount, bound to a pod or to nothing.
    pub fn token(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<&Pod>,
        audiences: &[&str],
    ) -> Result<String> {
        self.token_as(None, namespace, account, pod, audiences)
    }

    pub fn token_as(
        &self,
        who: Option<&Credentials>,
        namespace: &str,
        account: &str,
        pod: Option<&Pod>,
        audiences: &[&str],
    ) -> Result<String> {
        let mut wish = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 3600},
        });
        if let Some(pod) = pod {
            wish["spec"]["boundObjectRef"] =
                json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid});
        }
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let args = ["create", "--raw", &path, "-f", "-"];
        let answer = match who {
            Some(who) => who.kubectl(self.field.cluster(), args, &wish.to_string())?.text()?,
            None => self.field.cluster().kubectl_run(args).input(wish.to_string()).text()?,
        };
        let answer: Value = serde_json::from_str(&answer).context("the API server's answer")?;
        Ok(answer["status"]["token"].as_str().context("it gave no token")?.to_owned())
    }

    /// The same with other claims, genuine: signed with the API server's key.
    pub fn genuine(&self, token: &str, bend: impl FnOnce(&mut Value)) -> Result<String> {
        let signed = bent(token, None, bend)?;
        let scratch = self.field.scratch();
        let path = |name: &str| scratch.join(name).display().to_string();
        fs::write(scratch.join("signed"), &signed)?;
        let key = self.field.cluster().state()?.join("pki/service-accounts.key");
        let (key, signed_path, out) = (key.display().to_string(), path("signed"), path("jws"));
        openssl(["dgst", "-sha256", "-sign", &key, "-out", &out, &signed_path]).text()?;
        Ok(format!("{signed}.{}", URL_SAFE.encode(fs::read(&out)?)))
    }

    /// The same with other claims under the signature that it had.
    pub fn forged(token: &str, bend: impl FnOnce(&mut Value)) -> Result<String> {
        let signature = token.rsplit('.').next().unwrap_or_default();
        Ok(format!("{}.{signature}", bent(token, None, bend)?))
    }

    /// The same with `alg` none.
    pub fn unsigned(token: &str) -> Result<String> {
        Ok(bent(token, Some("none"), |_| ())? + ".")
    }
}

/// Header and claims with a change.
fn bent(token: &str, algorithm: Option<&str>, bend: impl FnOnce(&mut Value)) -> Result<String> {
    let part = |n: usize| -> Result<Value> {
        let part = token.split('.').nth(n).context("not a token")?;
        Ok(serde_json::from_slice(&URL_SAFE.decode(part)?)?)
    };
    let (mut header, mut claims) = (part(0)?, part(1)?);
    if let Some(algorithm) = algorithm {
        header["alg"] = algorithm.into();
    }
    bend(&mut claims);
    let encode = |value: &Value| URL_SAFE.encode(value.to_string());
    Ok(format!("{}.{}", encode(&header), encode(&claims)))
}
