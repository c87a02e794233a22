//! What an operator sets about the CA, as arguments.

use std::path::PathBuf;

use clap::{Args, builder::FalseyValueParser};

use super::{is_name, jwt::JwtArgs};
use crate::{
    cli::UsageError,
    controller::ca::{CaSettings, PemConfigMap},
    id::TrustDomain,
    volume::duration,
};

/// The CA's part of the arguments of `svid-csi controller`.
#[derive(Debug, Args)]
#[command(next_help_heading = "CA and trust")]
pub(super) struct CaArgs {
    /// Secret with the CA's keys; made on the first start
    #[arg(
        long, env = "SVID_CSI_CA_SECRET", value_name = "NAME", default_value = CaSettings::SECRET
    )]
    ca_secret: String,

    /// How long a CA lives; the next is prepared at half of it and signs from two thirds
    #[arg(long, env = "SVID_CSI_CA_LIFETIME", default_value = "8760h", value_name = "DURATION")]
    ca_lifetime: String,

    /// How long a new CA is in the bundle before it signs
    #[arg(long, env = "SVID_CSI_CA_PROPAGATION", default_value = "5m", value_name = "DURATION")]
    ca_propagation: String,

    /// Secret with a CA of your own (tls.crt, tls.key, ca.crt), which is followed when it changes
    #[arg(long, env = "SVID_CSI_CA_UPSTREAM_SECRET", value_name = "NAME")]
    ca_upstream_secret: Option<String>,

    /// Directory with the certificates, never the key, of a local CA that is being left
    #[arg(long, env = "SVID_CSI_RETIRING_CA_DIR", value_name = "DIR")]
    retiring_ca_dir: Option<PathBuf>,

    /// ConfigMap with the roots as PEM (ca.crt), written into selected namespaces
    #[arg(long, env = "SVID_CSI_PUBLISH_PEM_CONFIG_MAP", value_name = "NAME")]
    publish_pem_config_map: Option<String>,

    /// Label selector of the namespaces that get it [default: all]
    #[arg(
        long,
        env = "SVID_CSI_PUBLISH_PEM_NAMESPACES",
        value_name = "SELECTOR",
        requires = "publish_pem_config_map"
    )]
    publish_pem_namespaces: Option<String>,

    /// Publish the roots as a ClusterTrustBundle too, where the API server has them
    #[arg(
        long, env = "SVID_CSI_PUBLISH_CLUSTER_TRUST_BUNDLE",
        value_parser = FalseyValueParser::new()
    )]
    publish_cluster_trust_bundle: bool,

    #[command(flatten)]
    jwt: JwtArgs,
}

/// [`CaSettings`] but for what is only known once the namespace is.
pub(super) struct CaChoice(CaSettings);

// === impl CaArgs ===

impl CaArgs {
    pub(super) fn settings(
        self,
        trust_domain: TrustDomain,
        config_map: String,
    ) -> Result<CaChoice, UsageError> {
        for (setting, name) in [
            ("--ca-secret", Some(&self.ca_secret)),
            ("--ca-upstream-secret", self.ca_upstream_secret.as_ref()),
            ("--publish-pem-config-map", self.publish_pem_config_map.as_ref()),
        ] {
            if name.is_some_and(|name| !is_name(name)) {
                return Err(UsageError::new(setting, "must be the name of a Kubernetes object"));
            }
        }
        if self.ca_upstream_secret.as_ref() == Some(&self.ca_secret) {
            return Err(UsageError::new(
                "--ca-upstream-secret",
                "must be another Secret than --ca-secret, which holds the controller's own copy",
            ));
        }
        let parse = |setting, text: &str| {
            duration::parse(text).map_err(|error| UsageError::new(setting, error))
        };
        let namespaces = self.publish_pem_namespaces.unwrap_or_default();
        let settings = CaSettings {
            secret: self.ca_secret,
            config_map,
            lifetime: parse("--ca-lifetime", &self.ca_lifetime)?,
            propagation: parse("--ca-propagation", &self.ca_propagation)?,
            jwt: self.jwt.settings()?,
            upstream: self.ca_upstream_secret,
            retiring_dir: self.retiring_ca_dir,
            pem_config_map: self
                .publish_pem_config_map
                .map(|name| PemConfigMap { name, namespaces }),
            cluster_trust_bundle: self.publish_cluster_trust_bundle,
            ..CaSettings::new(trust_domain, "")
        };
        settings.check().map_err(|error| UsageError::new("--ca-lifetime", error))?;
        let propagation = settings.propagation;
        settings
            .jwt
            .check(propagation)
            .map_err(|error| UsageError::new("--jwt-key-lifetime", error))?;
        Ok(CaChoice(settings))
    }
}

// === impl CaChoice ===

impl CaChoice {
    /// In this namespace.
    pub(super) fn in_namespace(self, namespace: &str) -> CaSettings {
        CaSettings { namespace: namespace.to_owned(), ..self.0 }
    }
}
