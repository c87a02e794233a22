//! What else lies about: the CA, the bundle, the controller's rights, policies.

use anyhow::Result;

use super::{Attacks, Expected::Refused, field::Field};
use crate::{
    control::{BUNDLE, CA_SECRET},
    ground::NAMESPACE,
};

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let secret = format!("{secrets}/{CA_SECRET}");
    let bundle = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{BUNDLE}");
    let token = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/svid-csi-controller/token");
    let map = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": BUNDLE, "namespace": NAMESPACE},
        "data": {"bundle.json": "{\"keys\":[]}"},
    })
    .to_string();
    let request = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []},
    })
    .to_string();
    let policy = serde_json::json!({
        "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
        "metadata": {"name": "e2e-attack"}, "spec": {"priority": 100_000, "id": "/anything"},
    })
    .to_string();
    let policies = "/apis/svid.dev/v1alpha1/svidpolicies";
    for (who, name) in [(&field.driver, "the driver"), (&field.kubelet, "the kubelet")] {
        for (what, args, input) in [
            ("reads the CA's Secret", ["get", "--raw", &secret, "", ""], ""),
            ("lists Secrets", ["get", "--raw", &secrets, "", ""], ""),
            ("writes the bundle", ["replace", "--raw", &bundle, "-f", "-"], map.as_str()),
            ("deletes the bundle", ["delete", "--raw", &bundle, "", ""], ""),
            ("asks for the controller's token", ["create", "--raw", &token, "-f", "-"], &request),
            ("makes a policy", ["create", "--raw", policies, "-f", "-"], &policy),
        ] {
            let args = args.into_iter().filter(|arg| !arg.is_empty());
            let outcome = field.attempt(who, args, input)?;
            attacks.add(format!("{name} {what}"), Refused("Forbidden"), outcome);
        }
    }
    let controller = format!("--as=system:serviceaccount:{NAMESPACE}:svid-csi-controller");
    let args = [controller.as_str(), "get", "--raw", &secret];
    let outcome = field.attempt(&field.driver, args, "")?;
    attacks.add("the driver acts as the controller", Refused("Forbidden"), outcome);
    let pods = "/api/v1/pods";
    let outcome = field.attempt(&field.driver, ["get", "--raw", pods], "")?;
    attacks.add("the driver lists Pods", Refused("Forbidden"), outcome);
    Ok(())
}
