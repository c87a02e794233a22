//! The signer against an API server in this process.

use super::*;
use crate::{
    id::SpiffeId,
    pki::{Csr, KeyAlgorithm, PrivateKey},
    volume::PodInfo,
};

/// A request of the n-th volume, with a new key.
pub(super) fn request(n: usize) -> SignRequest {
    let id: SpiffeId = "spiffe://example.org/ns/shop/sa/cart".parse().unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    SignRequest {
        volume: format!("csi-{n}").parse().unwrap(),
        pod: PodInfo {
            namespace: "shop".to_owned(),
            name: format!("cart-{n}"),
            uid: n.to_string(),
            service_account: "cart".to_owned(),
        },
        csr: Csr::create(&key, &id).unwrap(),
        id,
        ttl: Duration::from_secs(3600),
        explicit_ttl: None,
        explicit_key_algorithm: None,
        dns_names: Vec::new(),
    }
}
