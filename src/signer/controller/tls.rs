//! Who it is that answers as the controller.
//!
//! Every workload of the trust domain chains to the same bundle, so a chain proves nothing yet: the
//! certificate must be an X.509-SVID of exactly the controller's identity.

use std::{fmt, io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    clock::Clock,
    id::SpiffeId,
    pki::{Certificate, PkiError, SvidError, X509Svid},
    trust::BundleStore,
};

/// More certificates than a chain has.
const MAX_CHAIN: usize = 10;

/// Makes connections that end at the controller and nowhere else.
pub(super) struct Tls {
    connector: TlsConnector,
    identity: Arc<Identity>,
}

/// Whoever proves to be the controller.
pub(super) struct Identity {
    id: SpiffeId,
    bundles: Arc<BundleStore>,
    clock: Arc<dyn Clock>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why somebody is not the controller.
#[derive(Debug, thiserror::Error)]
pub(super) enum Impostor {
    #[error("there is no trust bundle to verify the controller by yet")]
    NoBundle,
    #[error("its certificate is no X.509-SVID of the trust domain: {0}")]
    Svid(#[from] SvidError),
    #[error("its certificate can't be read: {0}")]
    Pki(#[from] PkiError),
    #[error("it is {found}, not the controller ({expected})")]
    Other { expected: SpiffeId, found: SpiffeId },
}

// === impl Tls ===

impl Tls {
    pub(super) fn new(
        id: SpiffeId,
        bundles: Arc<BundleStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let identity = Arc::new(Identity { id, bundles, clock, algorithms });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(identity.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session is not verified again, by whatever the bundle says now.
        config.resumption = Resumption::disabled();
        // No name counts, so none is told.
        config.enable_sni = false;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), identity })
    }

    /// A connection to whoever is at the other end and proves to be the controller, and its SVID.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, X509Svid)> {
        let name = ServerName::from(stream.peer_addr()?.ip());
        let stream = self.connector.connect(name, stream).await?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("it does not speak HTTP/2 (ALPN h2)"));
        }
        let chain = session.peer_certificates().unwrap_or_default();
        let svid = svid(chain).map_err(io::Error::other)?;
        Ok((stream, svid))
    }

    /// Whether one that was let in before would be let in now.
    pub(super) fn still_trusts(&self, svid: &X509Svid) -> Result<(), Impostor> {
        self.identity.verify(svid)
    }
}

// === impl Identity ===

impl Identity {
    fn verify(&self, svid: &X509Svid) -> Result<(), Impostor> {
        let bundles = self.bundles.current().ok_or(Impostor::NoBundle)?;
        if *svid.id() != self.id {
            let (expected, found) = (self.id.clone(), svid.id().clone());
            return Err(Impostor::Other { expected, found });
        }
        Ok(svid.verify_chain(&bundles.own, self.clock.now())?)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Identity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [end_entity].into_iter().chain(intermediates);
        svid(chain)
            .and_then(|svid| self.verify(&svid))
            .map(|()| ServerCertVerified::assertion())
            .map_err(|impostor| CertificateError::Other(OtherError(Arc::new(impostor))).into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 is all that is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn svid<'a>(chain: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Result<X509Svid, Impostor> {
    let read = |der: &CertificateDer<'_>| Certificate::from_der(der);
    // A longer one leads nowhere.
    let chain = chain.into_iter().take(MAX_CHAIN).map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(X509Svid::from_chain(chain)?)
}

/// Who it was instead of the controller, if that is why a connection failed.
pub(super) fn impostor(error: &io::Error) -> Option<&Impostor> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            other.downcast_ref()
        }
        _ => None,
    }
}
