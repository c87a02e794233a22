//! The X.509-SVID profile (Workload API §5).

use axum::body::Bytes;
use svid_csi_proto::workload::{X509BundlesResponse, X509svid, X509svidResponse};
use tonic::Status;

use super::{
    bundles::{BundleEncoder, concatenated},
    entitlement::{Entitlement, Pair},
};

/// The pod's one SVID, its key and all bundles.
pub(super) fn svids(
    entitlement: &Entitlement,
    encoder: &BundleEncoder,
) -> Result<X509svidResponse, Status> {
    let Pair { svid, bundles } = entitlement.pair()?;
    let bundles = encoder.encode(bundles);
    let svid = X509svid {
        spiffe_id: svid.x509.id().to_string(),
        x509_svid: concatenated(svid.x509.chain()),
        x509_svid_key: Bytes::copy_from_slice(svid.key.pkcs8_der()),
        bundle: bundles.own.clone(),
        hint: String::new(),
    };
    let federated_bundles = bundles.federated.clone();
    Ok(X509svidResponse { svids: vec![svid], crl: Vec::new(), federated_bundles })
}

/// Everybody's bundles.
pub(super) fn bundles(
    entitlement: &Entitlement,
    encoder: &BundleEncoder,
) -> Result<X509BundlesResponse, Status> {
    let bundles = encoder.encode(entitlement.bundles()?).all.clone();
    Ok(X509BundlesResponse { crl: Vec::new(), bundles })
}
