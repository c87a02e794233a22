//! What is sent for which request, without a connection.

mod delta;
mod secrets;
mod state_of_the_world;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message;
use svid_csi_proto::envoy::{
    config::core::v3::{
        BuildVersion, DataSource, Node, data_source::Specifier, node::UserAgentVersionType,
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, SpiffeCertValidatorConfig, secret::Type,
    },
    r#type::v3::SemanticVersion,
};
use tonic::Status;

use super::{Protocol, secrets::Secrets};
use crate::{
    id::{SpiffeId, TrustDomain},
    node::OfferedSvid,
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey},
    trust::TrustBundles,
};

const OWN: &str = "spiffe://example.org";
const PARTNER: &str = "spiffe://partner.example";
const CART: &str = "spiffe://example.org/ns/shop/sa/cart";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

fn authority(domain: &str) -> Authority {
    let domain: TrustDomain = domain.parse().unwrap();
    let day = Duration::from_secs(86_400);
    Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now()).unwrap()
}

fn svid(authority: &Authority) -> OfferedSvid {
    let id: SpiffeId = CART.parse().unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let x509 =
        authority.issue(csr.public_key(), &id, &[], Duration::from_secs(3_600), now()).unwrap();
    OfferedSvid { x509, key: Arc::new(key) }
}

/// A pod of example.org, which federates with partner.example.
fn secrets() -> Secrets {
    let own = authority("example.org");
    let partner = authority("partner.example").bundle();
    let federated = [(partner.trust_domain().clone(), partner)].into();
    let bundles = Arc::new(TrustBundles { own: own.bundle(), federated });
    Secrets { svid: Ok(svid(&own)), bundles }
}

/// The same pod after a rotation.
fn rotated(secrets: &Secrets) -> Secrets {
    Secrets { svid: Ok(svid(&authority("example.org"))), bundles: secrets.bundles.clone() }
}

/// The same pod after a change of the own trust domain's bundle.
fn another_ca(secrets: &Secrets) -> Secrets {
    let own = authority("example.org").bundle();
    let bundles = TrustBundles { own, federated: secrets.bundles.federated.clone() };
    Secrets { svid: secrets.svid.clone(), bundles: Arc::new(bundles) }
}

/// The same pod once nobody federates any longer.
fn alone(secrets: &Secrets) -> Secrets {
    let bundles = Arc::new(TrustBundles::own(secrets.bundles.own.clone()));
    Secrets { svid: secrets.svid.clone(), bundles }
}

fn envoy(major_number: u32, minor_number: u32) -> Option<Node> {
    let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
    let build = UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version });
    Some(Node { user_agent_version_type: Some(build), ..Node::default() })
}

fn strings<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

fn secret(resource: &prost_types::Any) -> Secret {
    assert_eq!(
        resource.type_url,
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    );
    Secret::decode(&*resource.value).unwrap()
}

fn text(source: &Option<DataSource>) -> String {
    match source.as_ref().and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        None => panic!("no data"),
    }
}

/// Certificate chain and key.
fn certificate(secret: &Secret) -> (String, String) {
    match &secret.r#type {
        Some(Type::TlsCertificate(it)) => (text(&it.certificate_chain), text(&it.private_key)),
        other => panic!("{other:?}"),
    }
}

fn context(secret: &Secret) -> &CertificateValidationContext {
    match &secret.r#type {
        Some(Type::ValidationContext(context)) => context,
        other => panic!("{other:?}"),
    }
}

/// Trust domains of the SPIFFE validator, with their certificates.
fn trusted(secret: &Secret) -> Vec<(String, String)> {
    let config = context(secret).custom_validator_config.as_ref().unwrap();
    assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
    let config = config.typed_config.as_ref().unwrap();
    assert_eq!(
        config.type_url,
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    );
    let config = SpiffeCertValidatorConfig::decode(&*config.value).unwrap();
    config.trust_domains.iter().map(|it| (it.name.clone(), text(&it.trust_bundle))).collect()
}
