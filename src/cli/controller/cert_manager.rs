//! Settings of the approver of cert-manager's CertificateRequests.

use clap::Args;

use super::is_name;
use crate::{
    cli::UsageError,
    k8s::{IssuerRef, ObjectName},
};

/// Arguments about cert-manager.
#[derive(Debug, Default, Args)]
pub(super) struct CertManagerArgs {
    /// Approve CertificateRequests to this issuer, as in ClusterIssuer/spiffe-ca or
    /// Issuer.cert-manager.io/spiffe-ca; as nodes have it with --signer cert-manager
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_ISSUER", value_name = "KIND[.GROUP]/NAME")]
    cert_manager_issuer: Option<String>,

    /// The same, with a ConfigMap in --namespace that may name another issuer at any time
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_ISSUER_CONFIG_MAP", value_name = "NAME")]
    cert_manager_issuer_config_map: Option<String>,

    /// Namespace of the CertificateRequests [default: --namespace]
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_NAMESPACE", value_name = "NAMESPACE")]
    cert_manager_namespace: Option<String>,

    /// ServiceAccounts that must not be able to approve them: nothing is approved while one is
    #[arg(
        long,
        env = "SVID_CSI_CERT_MANAGER_APPROVERS",
        value_name = "NAMESPACE/NAME,…",
        value_delimiter = ',',
        default_values = DEFAULT_APPROVERS
    )]
    cert_manager_approvers: Vec<String>,
}

/// What is decided about cert-manager's requests.
pub(super) struct CertManagerSettings {
    pub(super) issuer: Option<IssuerRef>,
    pub(super) issuer_map: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) approvers: Vec<ObjectName>,
}

/// As cert-manager and its approvers are installed by their charts.
const DEFAULT_APPROVERS: [&str; 3] = [
    "cert-manager/cert-manager",
    "cert-manager/cert-manager-approver-policy",
    "cert-manager/cert-manager-csi-driver-spiffe-approver",
];

// === impl CertManagerArgs ===

impl CertManagerArgs {
    /// What is decided, where cert-manager signs.
    pub(super) fn settings(self) -> Result<Option<CertManagerSettings>, UsageError> {
        // An empty variable of the environment is none.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let issuer = given(self.cert_manager_issuer)
            .map(|text| text.parse())
            .transpose()
            .map_err(|error| UsageError::new("--cert-manager-issuer", error))?;
        let issuer_map = given(self.cert_manager_issuer_config_map);
        let namespace = given(self.cert_manager_namespace);
        for (setting, name) in [
            ("--cert-manager-issuer-config-map", &issuer_map),
            ("--cert-manager-namespace", &namespace),
        ] {
            if name.as_deref().is_some_and(|name| !is_name(name)) {
                return Err(UsageError::new(setting, "must be the name of a Kubernetes object"));
            }
        }
        if issuer.is_none() && issuer_map.is_none() {
            return Ok(None);
        }
        let account = |text: &String| match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(ObjectName::new(namespace, name))
            }
            _ => Err(UsageError::new(
                "--cert-manager-approvers",
                "must be NAMESPACE/NAME of ServiceAccounts, with commas between",
            )),
        };
        let approvers = self.cert_manager_approvers.iter().filter(|text| !text.is_empty());
        let approvers = approvers.map(account).collect::<Result<_, _>>()?;
        Ok(Some(CertManagerSettings { issuer, issuer_map, namespace, approvers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(issuer: &str, map: &str, approvers: &[&str]) -> CertManagerArgs {
        CertManagerArgs {
            cert_manager_issuer: Some(issuer.to_owned()),
            cert_manager_issuer_config_map: Some(map.to_owned()),
            cert_manager_namespace: Some(String::new()),
            cert_manager_approvers: approvers.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn an_issuer_or_its_configmap_turns_it_on() {
        assert!(args("", "", &[]).settings().unwrap().is_none());
        let settings = args("Issuer/a", "", &DEFAULT_APPROVERS).settings().unwrap().unwrap();
        assert_eq!(settings.issuer.unwrap().to_string(), "Issuer/a");
        assert_eq!(settings.approvers[0].to_string(), "cert-manager/cert-manager");
        assert!(settings.namespace.is_none());
        assert!(args("", "map", &[]).settings().unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (args, setting) in [
            (args("a", "", &[]), "--cert-manager-issuer"),
            (args("", "Not A Name", &[]), "--cert-manager-issuer-config-map"),
            (args("Issuer/a", "", &["cert-manager"]), "--cert-manager-approvers"),
        ] {
            let error = args.settings().err().unwrap().to_string();
            assert!(error.contains(setting), "{error}");
        }
    }
}
