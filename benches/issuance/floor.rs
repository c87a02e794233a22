//! The API server's own limit: the four writes of an issuance, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition,
        CertificateSigningRequestSpec, CertificateSigningRequestStatus,
    },
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::task::JoinSet;

use crate::sample::Sample;

/// No fence and no controller is about it.
const SIGNER: &str = "example.org/floor";

#[derive(Clone)]
pub struct Floor {
    api: Api<CertificateSigningRequest>,
    request: ByteString,
    certificate: ByteString,
}

// === impl Floor ===

impl Floor {
    pub async fn new(kubeconfig: &std::path::Path) -> Self {
        let file = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(file, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let id = "spiffe://example.org/ns/bench/sa/app-0".try_into().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![rcgen::SanType::URI(id)];
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            api: Api::all(client),
            request: ByteString(request.into_bytes()),
            certificate: ByteString(certificate.into_bytes()),
        }
    }

    /// So many, so many at once: how long all took, and each.
    pub async fn run(&self, label: &str, count: usize, wide: usize) -> (Duration, Sample) {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        for _ in 0..wide {
            let (floor, next, label) = (self.clone(), next.clone(), label.to_owned());
            tasks.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return took;
                    }
                    let began = Instant::now();
                    floor.once(&format!("floor-{label}-{n}")).await;
                    took.push(began.elapsed());
                }
            });
        }
        let each = tasks.join_all().await.concat();
        (began.elapsed(), each.into_iter().collect())
    }

    async fn once(&self, name: &str) {
        let params = PostParams::default();
        let spec = CertificateSigningRequestSpec {
            request: self.request.clone(),
            signer_name: SIGNER.to_owned(),
            expiration_seconds: Some(3600),
            usages: Some(
                ["digital signature", "server auth", "client auth"].map(Into::into).into(),
            ),
            ..Default::default()
        };
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        let object = CertificateSigningRequest { metadata, spec, status: None };
        let mut made = self.api.create(&params, &object).await.unwrap();
        let approved = CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("Floor".to_owned()),
            ..Default::default()
        };
        made.status = Some(CertificateSigningRequestStatus {
            conditions: Some(vec![approved]),
            ..Default::default()
        });
        let mut made =
            self.api.replace_subresource("approval", name, &params, &made).await.unwrap();
        if let Some(status) = &mut made.status {
            status.certificate = Some(self.certificate.clone());
        }
        self.api.replace_subresource("status", name, &params, &made).await.unwrap();
        self.api.delete(name, &DeleteParams::default()).await.unwrap();
    }
}
