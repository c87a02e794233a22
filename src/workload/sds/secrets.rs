//! What a pod's secrets are called and what is in them.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message;
use svid_csi_proto::envoy::{
    config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
        secret::Type, spiffe_cert_validator_config::TrustDomain as TrustedDomain,
    },
};
use tonic::Status;

use super::super::entitlement::Entitlement;
use crate::{
    node::OfferedSvid,
    pki::{TrustBundle, sha256_hex},
    trust::TrustBundles,
};

/// The type of every resource here.
pub(super) const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The pod's SVID and key; also under its SPIFFE ID. The names are SPIRE's defaults.
const DEFAULT: &str = "default";
/// The bundle of the own trust domain; also under the trust domain's SPIFFE ID.
const ROOT_CA: &str = "ROOTCA";
/// Every trust domain's bundle.
const ALL: &str = "ALL";

const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_CONFIG_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// How one bundle is given to a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Validation {
    /// Certificates to trust, whatever trust domain a peer then claims to be of.
    #[default]
    TrustedCa,
    /// Envoy's SPIFFE validator, in Envoy since 1.18: trusted for this trust domain alone.
    Spiffe,
}

/// What a pod may be given now.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    /// Its SVID, or why there is none.
    pub(super) svid: Result<OfferedSvid, Status>,
    pub(super) bundles: Arc<TrustBundles>,
}

/// One secret, ready to be sent.
#[derive(Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Changes when the content does, tells nothing of it, and is the same after a restart.
    pub(super) version: String,
    pub(super) secret: prost_types::Any,
}

// === impl Secrets ===

impl Secrets {
    pub(super) fn of(entitlement: &Entitlement) -> Result<Self, Status> {
        Ok(Self {
            svid: entitlement.pair().map(|pair| pair.svid.clone()),
            bundles: entitlement.bundles()?.clone(),
        })
    }

    /// The names of all entries, each once: its SPIFFE ID and every trust domain's.
    pub(super) fn names(&self) -> Result<BTreeSet<String>, Status> {
        let svid = self.svid.as_ref().map_err(Status::clone)?;
        let mut names: BTreeSet<_> =
            self.bundles.federated.keys().map(|it| it.id().to_string()).collect();
        names.insert(self.bundles.own.trust_domain().id().to_string());
        names.insert(svid.x509.id().to_string());
        Ok(names)
    }

    /// The secret of this name, if there is one. Only bundles are found while there is no SVID.
    pub(super) fn find(&self, name: &str, validation: Validation) -> Result<Option<Entry>, Status> {
        let own = &self.bundles.own;
        if name == ALL {
            let all = [own].into_iter().chain(self.bundles.federated.values()).collect();
            return Ok(Some(bundles(name, all, Validation::Spiffe)));
        }
        if name == ROOT_CA {
            return Ok(Some(bundles(name, vec![own], validation)));
        }
        let every = [own].into_iter().chain(self.bundles.federated.values());
        for bundle in every {
            if bundle.trust_domain().id().as_str() == name {
                return Ok(Some(bundles(name, vec![bundle], validation)));
            }
        }
        let svid = self.svid.as_ref().map_err(Status::clone)?;
        let found = name == DEFAULT || name == svid.x509.id().as_str();
        Ok(found.then(|| certificate(name, svid)))
    }
}

// === impl Entry ===

impl Entry {
    fn new(name: &str, kind: Type, content: &[u8]) -> Self {
        let secret = Secret { name: name.to_owned(), r#type: Some(kind) };
        let mut version = sha256_hex(content);
        version.truncate(32);
        Self { name: name.to_owned(), version, secret: any(TYPE_URL, &secret) }
    }
}

fn certificate(name: &str, svid: &OfferedSvid) -> Entry {
    let chain = svid.x509.chain_pem();
    let key = svid.key.to_pem();
    let certificate = TlsCertificate {
        certificate_chain: inline(chain.clone().into_bytes()),
        private_key: inline(key.as_bytes().to_vec()),
    };
    // A certificate has one key, so the chain says which.
    Entry::new(name, Type::TlsCertificate(certificate), chain.as_bytes())
}

fn bundles(name: &str, bundles: Vec<&TrustBundle>, validation: Validation) -> Entry {
    let pem = |bundle: &TrustBundle| inline(bundle.to_pem().into_bytes());
    let mut context = CertificateValidationContext::default();
    match (validation, &*bundles) {
        (Validation::TrustedCa, [bundle]) => context.trusted_ca = pem(bundle),
        _ => {
            let trust_domains = bundles.iter().map(|bundle| TrustedDomain {
                name: bundle.trust_domain().to_string(),
                trust_bundle: pem(bundle),
            });
            let config = SpiffeCertValidatorConfig { trust_domains: trust_domains.collect() };
            context.custom_validator_config = Some(TypedExtensionConfig {
                name: VALIDATOR.to_owned(),
                typed_config: Some(any(VALIDATOR_CONFIG_URL, &config)),
            });
        }
    }
    let content = context.encode_to_vec();
    Entry::new(name, Type::ValidationContext(context), &content)
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.into())) })
}

fn any(type_url: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}
