//! The certificate by which nodes know that they talk to the controller: an X.509-SVID that the
//! replica's own keyring makes, and a key that never leaves its memory.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    controller::{
        ca::NotReady,
        issuance::{Issuance, IssuanceError},
    },
    id::{SpiffeId, TrustDomain},
    pki::{KeyAlgorithm, PkiError, PrivateKey, PublicKey},
};

/// How long the controller's SVID lives; it is replaced at half of that, and when another CA signs.
const TTL: Duration = Duration::from_secs(3_600);

/// The controller's SVID, made when it is first needed and again when it is due.
pub(super) struct ServerCertificate {
    issuance: Arc<Issuance>,
    id: SpiffeId,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
    current: Mutex<Option<Current>>,
}

struct Current {
    key: Arc<CertifiedKey>,
    ca_key_id: String,
    renew_at: SystemTime,
    ends_at: SystemTime,
}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error(transparent)]
    Issuance(#[from] IssuanceError),
    #[error(transparent)]
    Key(#[from] PkiError),
    #[error("the key is of no use for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

// === impl ServerCertificate ===

impl ServerCertificate {
    /// For the controller of this trust domain.
    pub(super) fn new(
        issuance: Arc<Issuance>,
        trust_domain: &TrustDomain,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            issuance,
            id: SpiffeId::controller(trust_domain),
            clock,
            provider: Arc::new(aws_lc_rs::default_provider()),
            current: Mutex::default(),
        })
    }

    /// TLS 1.3 for HTTP/2 with this certificate. Each connection proves it anew: there are no tickets,
    /// so that nobody goes on trusting a CA that is gone.
    pub(super) fn config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone());
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The certificate of now. While nothing may be signed the last one goes on until it ends: who
    /// connects is told so by an answer.
    fn now(&self) -> Result<Arc<CertifiedKey>, CertificateError> {
        let now = self.clock.now();
        let signing = self.issuance.keyring.signing(now);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = current.as_ref().filter(|current| now < current.ends_at);
        let renewed = match (&signing, valid) {
            (Ok(authority), Some(current))
                if current.ca_key_id == authority.key_id() && now < current.renew_at =>
            {
                return Ok(current.key.clone());
            }
            (Ok(_), _) => self.make(now),
            (Err(reason), _) => Err(reason.clone().into()),
        };
        match (renewed, valid) {
            (Ok(renewed), _) => Ok(current.insert(renewed).key.clone()),
            (Err(error), Some(current)) => {
                warn!(%error, "the controller's own certificate could not be renewed");
                Ok(current.key.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn make(&self, now: SystemTime) -> Result<Current, CertificateError> {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let public_key = PublicKey::from_spki_der(key.spki_der()).ok_or(PkiError::UnusableKey)?;
        let (svid, ca_key_id) = self.issuance.sign_own(&public_key, &self.id, TTL)?;
        let chain = svid.chain().iter().map(|one| CertificateDer::from(one.der().to_vec()));
        let der = PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
        let signer = self.provider.key_provider.load_private_key(der.into())?;
        let ends_at = svid.not_after();
        let left = ends_at.duration_since(now).unwrap_or_default();
        info!(id = %self.id, serial = svid.serial_hex(), "the controller's own certificate");
        Ok(Current {
            key: Arc::new(CertifiedKey::new(chain.collect(), signer)),
            ca_key_id,
            renew_at: now + left / 2,
            ends_at,
        })
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Without one the handshake fails, and the client tries another replica.
        self.now().ok()
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("id", &self.id).finish_non_exhaustive()
    }
}
