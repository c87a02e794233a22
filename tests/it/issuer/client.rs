//! A client of the issuer's port that trusts whom it is told to.

use std::{io, net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use svid_csi::{
    id::SpiffeId,
    pki::{Certificate, TrustBundle, X509Svid},
};
use svid_csi_proto::issuer::v1::{
    IssueJwtSvidRequest, IssueX509SvidRequest, IssueX509SvidResponse, issue_jwt_svid_response,
    issuer_client::IssuerClient,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::now;
use crate::{api_server::Store, controller::bundle};

/// A client with one connection.
#[derive(Clone)]
pub struct Client {
    calls: IssuerClient<Channel>,
}

/// Lets in whoever is that, by that bundle.
#[derive(Debug)]
struct Expects {
    id: SpiffeId,
    bundle: TrustBundle,
}

pub fn controller() -> SpiffeId {
    SpiffeId::controller(&"example.org".parse().unwrap())
}

/// A TLS connection to whoever is `id` by the published bundle.
pub async fn tls(
    address: SocketAddr,
    id: SpiffeId,
    bundle: TrustBundle,
    alpn: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Expects { id, bundle }))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

// === impl Client ===

impl Client {
    pub async fn connect(address: SocketAddr, store: &Store) -> io::Result<Self> {
        let bundle = bundle(store);
        let versions = &[&rustls::version::TLS13];
        let stream = tls(address, controller(), bundle, b"h2", versions).await?;
        let mut stream = Some(TokioIo::new(stream));
        let channel = Endpoint::from_static("http://controller")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = stream.take();
                async { stream.ok_or_else(|| io::Error::other("it had one connection")) }
            }))
            .await
            .map_err(io::Error::other)?;
        Ok(Self { calls: IssuerClient::new(channel) })
    }

    pub async fn x509(
        &self,
        driver: &str,
        message: IssueX509SvidRequest,
    ) -> Result<IssueX509SvidResponse, Status> {
        let request = authorized(driver, message);
        Ok(self.calls.clone().issue_x509_svid(request).await?.into_inner())
    }

    pub async fn jwt(
        &self,
        driver: &str,
        message: IssueJwtSvidRequest,
    ) -> Result<Option<issue_jwt_svid_response::Answer>, Status> {
        let request = authorized(driver, message);
        Ok(self.calls.clone().issue_jwt_svid(request).await?.into_inner().answer)
    }
}

fn authorized<T>(driver: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !driver.is_empty() {
        let value = format!("Bearer {driver}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

// === impl Expects ===

impl ServerCertVerifier for Expects {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [leaf].into_iter().chain(intermediates);
        let chain = chain.map(|der| Certificate::from_der(der).unwrap()).collect();
        let svid =
            X509Svid::from_chain(chain).map_err(|error| Error::General(error.to_string()))?;
        if *svid.id() != self.id {
            return Err(Error::General(format!("it is {}", svid.id())));
        }
        svid.verify_chain(&self.bundle, now())
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
