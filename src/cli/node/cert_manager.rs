//! Settings of `--signer cert-manager`.

use std::path::PathBuf;

use clap::Args;

use super::SignerKind;
use crate::{cli::UsageError, k8s::IssuerRef};

/// Arguments about cert-manager.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct CertManagerArgs {
    /// With --signer cert-manager: namespace of the CertificateRequests [default: the own one]
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_NAMESPACE", value_name = "NAMESPACE")]
    cert_manager_namespace: Option<String>,

    /// With --signer cert-manager: who signs, as in ClusterIssuer/spiffe-ca or
    /// Issuer.cert-manager.io/spiffe-ca
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_ISSUER", value_name = "KIND[.GROUP]/NAME")]
    cert_manager_issuer: Option<String>,

    /// With --signer cert-manager: ConfigMap in the own namespace that may name another issuer at any
    /// time: issuer-name, issuer-kind, issuer-group
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_ISSUER_CONFIG_MAP", value_name = "NAME")]
    cert_manager_issuer_config_map: Option<String>,

    /// With --signer cert-manager: ConfigMap in the own namespace with the issuers' roots (ca.crt,
    /// PEM): what they sign is verified against these and nothing that an answer brings along
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_ROOTS_CONFIG_MAP", value_name = "NAME")]
    cert_manager_roots_config_map: Option<String>,

    /// The same in a file
    #[arg(long, env = "SVID_CSI_CERT_MANAGER_ROOTS_FILE", value_name = "PATH")]
    cert_manager_roots_file: Option<PathBuf>,
}

/// How cert-manager is asked.
pub(super) struct CertManagerSettings {
    /// Where the requests are; nothing for the own namespace.
    pub(super) namespace: Option<String>,
    /// Who signs by default.
    pub(super) issuer: Option<IssuerRef>,
    /// Where another one may be named.
    pub(super) issuer_map: Option<String>,
    /// Whom to trust.
    pub(super) roots: RootsSetting,
}

/// Where the issuers' roots are.
pub(super) enum RootsSetting {
    /// In this ConfigMap.
    Map(String),
    /// In this file.
    File(PathBuf),
}

// === impl CertManagerArgs ===

impl CertManagerArgs {
    /// How cert-manager is asked, where it signs.
    pub(super) fn settings(
        self,
        signer: SignerKind,
    ) -> Result<Option<CertManagerSettings>, UsageError> {
        // An empty variable of the environment is none.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (namespace, issuer) =
            (given(self.cert_manager_namespace), given(self.cert_manager_issuer));
        let issuer_map = given(self.cert_manager_issuer_config_map);
        let roots_map = given(self.cert_manager_roots_config_map);
        let file = self.cert_manager_roots_file.filter(|path| !path.as_os_str().is_empty());
        if !matches!(signer, SignerKind::CertManager) {
            for (setting, is_set) in [
                ("--cert-manager-namespace", namespace.is_some()),
                ("--cert-manager-issuer", issuer.is_some()),
                ("--cert-manager-issuer-config-map", issuer_map.is_some()),
                ("--cert-manager-roots-config-map", roots_map.is_some()),
                ("--cert-manager-roots-file", file.is_some()),
            ] {
                if is_set {
                    return Err(UsageError::new(setting, "is for --signer cert-manager"));
                }
            }
            return Ok(None);
        }
        let issuer = issuer
            .map(|text| text.parse())
            .transpose()
            .map_err(|error| UsageError::new("--cert-manager-issuer", error))?;
        if issuer.is_none() && issuer_map.is_none() {
            let reason = "or --cert-manager-issuer-config-map is needed with --signer cert-manager";
            return Err(UsageError::new("--cert-manager-issuer", reason));
        }
        let roots = match (roots_map, file) {
            (Some(map), None) => RootsSetting::Map(map),
            (None, Some(path)) => RootsSetting::File(path),
            _ => {
                let reason = "or --cert-manager-roots-file is needed with --signer cert-manager, \
                              and not both: they say which roots to trust";
                return Err(UsageError::new("--cert-manager-roots-config-map", reason));
            }
        };
        Ok(Some(CertManagerSettings { namespace, issuer, issuer_map, roots }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn enough() -> CertManagerArgs {
        CertManagerArgs {
            cert_manager_issuer: some("Issuer/a"),
            cert_manager_roots_config_map: some("roots"),
            ..CertManagerArgs::default()
        }
    }

    #[test]
    fn an_issuer_and_its_roots_are_needed() {
        let settings = enough().settings(SignerKind::CertManager).unwrap().unwrap();
        assert_eq!(settings.issuer.unwrap().to_string(), "Issuer/a");
        assert!(matches!(settings.roots, RootsSetting::Map(name) if name == "roots"));
        let refused = |args: CertManagerArgs| match args.settings(SignerKind::CertManager) {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        let args = CertManagerArgs { cert_manager_issuer: some(""), ..enough() };
        assert!(refused(args).contains("--cert-manager-issuer-config-map"));
        let args = CertManagerArgs { cert_manager_issuer: some("a"), ..enough() };
        assert!(refused(args).contains("KIND/NAME"));
        let args = CertManagerArgs { cert_manager_roots_config_map: None, ..enough() };
        assert!(refused(args).contains("--cert-manager-roots-file"));
        let file = Some(PathBuf::from("/roots.pem"));
        assert!(
            refused(CertManagerArgs { cert_manager_roots_file: file, ..enough() })
                .contains("not both")
        );
    }

    #[test]
    fn with_another_signer_they_are_refused() {
        assert!(CertManagerArgs::default().settings(SignerKind::Csr).unwrap().is_none());
        let error = enough().settings(SignerKind::Csr).err().unwrap().to_string();
        assert!(error.contains("--cert-manager-issuer"), "{error}");
    }
}
