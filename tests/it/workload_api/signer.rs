//! A signer that the test holds.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use svid_csi::{
    class::Class,
    clock::{Clock, SystemClock},
    jose::{JwtClaims, JwtKey, JwtKeyAlgorithm, JwtSvid},
    pki::{Authority, TrustBundle, X509Svid},
    signer::{JwtRequest, SignError, SignRequest, Signer, SignerStatus},
};

use crate::in_process::{TestClock, authority};

/// How long its JWT-SVIDs live.
const JWT_TTL: Duration = Duration::from_secs(300);

/// Signs with one CA and one JWT key, unless told to refuse.
pub struct HeldSigner {
    clock: Arc<TestClock>,
    authority: Mutex<Arc<Authority>>,
    pub jwt: Option<JwtKey>,
    refusal: Mutex<Option<Class>>,
    pub signed: AtomicUsize,
}

// === impl HeldSigner ===

impl HeldSigner {
    pub fn new(clock: Arc<TestClock>) -> Self {
        Self {
            clock,
            authority: Mutex::new(Arc::new(authority(SystemClock.now()))),
            jwt: Some(JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap()),
            refusal: Mutex::default(),
            signed: AtomicUsize::new(0),
        }
    }

    #[must_use]
    pub fn without_jwt(self) -> Self {
        Self { jwt: None, ..self }
    }

    pub fn authority(&self) -> Arc<Authority> {
        self.authority.lock().unwrap().clone()
    }

    /// Signs with another CA from now on.
    pub fn switch(&self, authority: Authority) -> Arc<Authority> {
        let authority = Arc::new(authority);
        *self.authority.lock().unwrap() = authority.clone();
        authority
    }

    /// The bundle of its CA.
    pub fn bundle(&self, sequence: u64) -> TrustBundle {
        self.bundle_of(&[&self.authority()], sequence)
    }

    /// The bundle of these CAs with the JWT key.
    pub fn bundle_of(&self, roots: &[&Authority], sequence: u64) -> TrustBundle {
        let bundles = roots.iter().map(|root| root.bundle());
        let bundle = bundles.reduce(|all, one| all.merged(&one)).unwrap();
        let jwt = self.jwt.iter().map(|key| key.authority().clone()).collect();
        bundle.with_jwt_authorities(jwt).with_sequence(Some(sequence))
    }

    /// From now on every request fails with this class; with `None` none does.
    pub fn refuse(&self, class: Option<Class>) {
        *self.refusal.lock().unwrap() = class;
    }

    fn answer<T>(&self, sign: impl FnOnce() -> Result<T, SignError>) -> Result<T, SignError> {
        match *self.refusal.lock().unwrap() {
            Some(class) => Err(SignError::new(class, "the test says no")),
            None => sign(),
        }
    }
}

#[async_trait]
impl Signer for HeldSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        self.answer(|| {
            self.signed.fetch_add(1, Ordering::SeqCst);
            let now = self.clock.now();
            self.authority()
                .issue(request.csr.public_key(), &request.id, &[], request.ttl, now)
                .map_err(|error| SignError::new(error.class(), error.to_string()))
        })
    }

    fn signs_jwt(&self) -> Result<(), SignError> {
        let missing = || SignError::new(Class::NotReady, "set a JWT key");
        self.jwt.as_ref().map(|_| ()).ok_or_else(missing)
    }

    async fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, SignError> {
        self.signs_jwt()?;
        self.answer(|| {
            self.signed.fetch_add(1, Ordering::SeqCst);
            let now = self.clock.now();
            let claims = JwtClaims {
                id: request.id.clone(),
                audience: request.audience.clone(),
                issued_at: now,
                expires_at: now + request.ttl.min(JWT_TTL),
                issuer: None,
                jti: false,
                extra: Default::default(),
            };
            let key = self.jwt.as_ref().unwrap();
            key.sign(&claims).map_err(|error| SignError::new(error.class(), error.to_string()))
        })
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }
}
