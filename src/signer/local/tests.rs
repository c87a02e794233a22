mod broken;
mod jwt;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use tempfile::TempDir;

use super::*;
use crate::{
    id::SpiffeId,
    jose::JwtKeyAlgorithm,
    pki::{Authority, Csr, KeyAlgorithm, PrivateKey, TrustBundle},
    volume::PodInfo,
};

const PROPAGATION: u64 = 300;
const TTL: u64 = 3_600;

struct TestClock(AtomicU64);

impl TestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000)))
    }

    fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn config(directory: &Path, create: bool) -> LocalConfig {
    let propagation = Duration::from_secs(PROPAGATION);
    let jwt = LocalJwtConfig { key_algorithm: JwtKeyAlgorithm::Es256, ..LocalJwtConfig::default() };
    let (directory, trust_domain) = (directory.to_owned(), domain());
    LocalConfig { directory, create, trust_domain, propagation, jwt }
}

fn open(directory: &Path, create: bool, clock: &Arc<TestClock>) -> LocalSigner {
    LocalSigner::open(config(directory, create), RecoveredTrust::default(), clock.clone())
}

fn bundle_of(signer: &LocalSigner) -> TrustBundle {
    signer.bundles().current().unwrap().own.clone()
}

fn new_ca(clock: &TestClock) -> Authority {
    let year = Duration::from_secs(365 * 86_400);
    Authority::create(&domain(), KeyAlgorithm::EcdsaP256, year, clock.now()).unwrap()
}

fn put(directory: &Path, authority: &Authority) {
    fs::write(directory.join("tls.crt"), authority.certificate_pem()).unwrap();
    put_key(directory, &authority.key_pem());
}

fn put_key(directory: &Path, pem: &str) {
    let key = directory.join("tls.key");
    fs::write(&key, pem).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
}

fn request() -> (SignRequest, PrivateKey) {
    let id: SpiffeId = "spiffe://example.org/ns/shop/sa/cart".parse().unwrap();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let csr = Csr::create(&key, &id).unwrap();
    let pod = PodInfo {
        namespace: "shop".to_owned(),
        name: "cart-1".to_owned(),
        uid: "1".to_owned(),
        service_account: "cart".to_owned(),
    };
    let (volume, ttl) = ("csi-1".parse().unwrap(), Duration::from_secs(TTL));
    let request = SignRequest {
        volume,
        pod,
        id,
        ttl,
        explicit_ttl: None,
        explicit_key_algorithm: None,
        dns_names: Vec::new(),
        pod_token: None,
        issuer: None,
        csr,
    };
    (request, key)
}

/// Signs, and checks the answer against the bundle published at that moment.
async fn signed_by(signer: &LocalSigner, clock: &TestClock) -> Certificate {
    let (request, key) = request();
    let svid = signer.sign(&request).await.unwrap();
    let bundle = bundle_of(signer);
    svid.verify(&request.id, key.spki_der(), &bundle, clock.now()).unwrap();
    signer.lock().rollover.active().unwrap().roots()[0].clone()
}

fn roots(signer: &LocalSigner) -> Vec<Certificate> {
    bundle_of(signer).x509_authorities().to_vec()
}

/// Why nothing is signed after a start with these files.
fn refusal(directory: &Path, clock: &Arc<TestClock>) -> String {
    let signer = open(directory, false, clock);
    assert!(signer.bundles().current().is_none() && signer.refused() == 1);
    let error = signer.status().ready.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "pods wait for it");
    error.to_string()
}

fn usable(directory: &Path, create: bool, clock: &Arc<TestClock>) -> LocalSigner {
    let signer = open(directory, create, clock);
    signer.status().ready.unwrap();
    signer
}

#[test]
fn a_ca_is_made_on_request_only_and_found_again() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let directory = root.path().join("deep/ca");
    assert!(refusal(&directory, &clock).contains("--ca-create"));
    let first = usable(&directory, true, &clock);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("tls.key")), 0o600);
    let certificate = roots(&first).remove(0);
    assert_eq!(certificate.uri_sans(), ["spiffe://example.org"], "an SVID without a path");
    let again = usable(&directory, true, &clock);
    assert_eq!(roots(&again), std::slice::from_ref(&certificate));
    let fixed = usable(&directory, false, &clock);
    assert_eq!(roots(&fixed), [certificate]);
    let files: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn of_many_that_start_at_once_one_makes_the_ca() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let all: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            let signer = usable(root.path(), true, &clock);
            roots(&signer).remove(0)
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|certificate| *certificate == all[0]));
}

#[test]
fn a_key_whose_certificate_was_not_written_yet_is_kept() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    put_key(root.path(), &key.to_pem());
    assert!(refusal(root.path(), &clock).contains("tls.crt"));
    let signer = usable(root.path(), true, &clock);
    assert_eq!(roots(&signer)[0].spki_der(), key.spki_der());
}

#[test]
fn files_that_cannot_serve_are_refused_with_what_to_do() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (dir, good, other) = (root.path(), new_ca(&clock), new_ca(&clock));
    let key = dir.join("tls.key");

    put(dir, &good);
    usable(dir, false, &clock);
    for mode in [0o644, 0o640, 0o604, 0o700, 0o660] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        assert!(refusal(dir, &clock).contains("chmod 0600"), "{mode:o}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        usable(dir, false, &clock);
    }
    chown(&key, Some(65_534), None).unwrap();
    assert!(refusal(dir, &clock).contains("uid 65534"));

    put_key(dir, &other.key_pem());
    chown(&key, Some(0), None).unwrap();
    assert!(refusal(dir, &clock).contains("key"), "a key of another certificate");
    put_key(dir, "-----BEGIN GARBAGE-----");
    refusal(dir, &clock);
    put_key(dir, "\u{fffd}\0\0");
    refusal(dir, &clock);

    put(dir, &good);
    fs::write(dir.join("tls.crt"), "not a certificate").unwrap();
    refusal(dir, &clock);
    fs::remove_file(dir.join("tls.crt")).unwrap();
    assert!(refusal(dir, &clock).contains("tls.crt is missing"));
    put(dir, &good);
    fs::remove_file(&key).unwrap();
    let message = refusal(dir, &clock);
    assert!(message.contains("tls.key is missing"), "{message}");
    let kept = open(dir, true, &clock).status().ready;
    assert!(kept.is_err(), "a certificate without its key is never replaced");

    put(dir, &good);
    fs::write(dir.join("ca.crt"), other.certificate_pem()).unwrap();
    refusal(dir, &clock);
    fs::remove_file(dir.join("ca.crt")).unwrap();
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(refusal(dir, &clock).contains("not a plain file"));
    fs::remove_dir(&key).unwrap();

    put(dir, &good);
    clock.forward(366 * 86_400);
    let message = refusal(dir, &clock);
    assert!(message.contains("expired"), "{message}");
}

#[tokio::test]
async fn a_leaf_is_no_ca() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    put(root.path(), &new_ca(&clock));
    let signer = usable(root.path(), false, &clock);
    let (request, key) = request();
    let leaf = signer.sign(&request).await.unwrap();
    fs::write(root.path().join("tls.crt"), leaf.chain_pem()).unwrap();
    put_key(root.path(), &key.to_pem());
    let message = refusal(root.path(), &clock);
    assert!(message.contains("CA"), "{message}");
}

/// A directory as kubelet mounts a Secret with `defaultMode: 0400`: all of it root's, every name a
/// link through `..data`, which is swapped.
struct MountedSecret(TempDir, AtomicU64);

impl MountedSecret {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
        Self(root, AtomicU64::new(0))
    }

    /// What the Secret holds now; `None` if it was deleted and the volume is optional.
    fn set(&self, authority: Option<&Authority>) {
        let dir = self.0.path();
        let name = format!("..{}", self.1.fetch_add(1, Ordering::SeqCst));
        fs::create_dir(dir.join(&name)).unwrap();
        if let Some(authority) = authority {
            put(&dir.join(&name), authority);
            for file in fs::read_dir(dir.join(&name)).unwrap() {
                fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o400)).unwrap();
            }
        }
        let old = fs::read_link(dir.join("..data"));
        symlink(&name, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            let link = dir.join(name);
            match authority {
                Some(_) if fs::symlink_metadata(&link).is_err() => {
                    symlink(format!("..data/{name}"), link).unwrap();
                }
                None if old.is_ok() => fs::remove_file(link).unwrap(),
                _ => {}
            }
        }
        if let Ok(old) = old {
            fs::remove_dir_all(dir.join(old)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_mounted_secret_serves_and_its_swap_is_followed() {
    let (secret, clock) = (MountedSecret::new(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    secret.set(Some(&old));
    let signer = usable(secret.0.path(), false, &clock);
    assert_eq!(signed_by(&signer, &clock).await, old.roots()[0]);

    secret.set(Some(&new));
    signer.poll();
    clock.forward(PROPAGATION);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0]);
    assert_eq!(signer.refused(), 0);

    // Deleted: kubelet empties the directory.
    secret.set(None);
    signer.poll();
    assert_eq!(signer.refused(), 1);
    signer.status().ready.unwrap();
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0]);
    secret.set(Some(&new));
    signer.poll();
    assert!(signer.lock().broken.is_none());
}

/// kubelet swaps both files at once: certificate and key of two versions are never put together.
#[test]
fn files_that_are_swapped_while_they_are_read_are_read_whole() {
    let (secret, clock) = (MountedSecret::new(), TestClock::new());
    let authorities = [new_ca(&clock), new_ca(&clock)];
    secret.set(Some(&authorities[0]));
    let directory = CaDirectory::new(secret.0.path().to_owned(), domain());
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for turn in 1..300 {
                secret.set(Some(&authorities[turn % 2]));
            }
        });
        while !swaps.is_finished() {
            // More swaps during one read than any kubelet makes may fail it, never mix it.
            if let Ok(files) = directory.read() {
                directory.load(&files, clock.now()).unwrap();
            }
        }
    });
}

/// Invariant 6: every signature verifies against the bundle of its moment, all the way.
#[tokio::test]
async fn a_changed_ca_is_in_the_bundle_before_it_signs_and_the_old_one_stays_while_it_is_used() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    put(root.path(), &old);
    let signer = usable(root.path(), false, &clock);
    let first = bundle_of(&signer).sequence().unwrap();
    assert_eq!(signed_by(&signer, &clock).await, old.roots()[0]);

    put(root.path(), &new);
    signer.poll();
    assert_eq!(roots(&signer), [old.roots()[0].clone(), new.roots()[0].clone()]);
    let second = bundle_of(&signer).sequence().unwrap();
    assert!(second > first, "the sequence grows with the content");
    clock.forward(PROPAGATION - 1);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, old.roots()[0]);

    clock.forward(1);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0]);
    clock.forward(TTL);
    signer.poll();
    assert_eq!(roots(&signer).len(), 2, "the last old SVID ended just now; clocks differ");
    clock.forward(100);
    signer.poll();
    assert_eq!(roots(&signer), [new.roots()[0].clone()]);
    let last = bundle_of(&signer).sequence().unwrap();
    assert!(last > second);
    signer.poll();
    assert_eq!(bundle_of(&signer).sequence(), Some(last), "nothing changed");
}

/// Invariant 3, for the CA itself.
#[tokio::test]
async fn garbage_in_the_directory_does_not_stop_the_ca_in_memory() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    put(root.path(), &old);
    let signer = usable(root.path(), false, &clock);

    fs::write(root.path().join("tls.crt"), new.certificate_pem()).unwrap();
    signer.poll();
    signer.poll();
    assert_eq!(signer.refused(), 1, "a state is counted once, however long it lasts");
    fs::write(root.path().join("tls.crt"), "garbage").unwrap();
    signer.poll();
    fs::remove_file(root.path().join("tls.crt")).unwrap();
    fs::remove_file(root.path().join("tls.key")).unwrap();
    signer.poll();
    assert_eq!(signer.refused(), 3);
    assert_eq!(signed_by(&signer, &clock).await, old.roots()[0]);
    assert_eq!(roots(&signer), [old.roots()[0].clone()]);

    put(root.path(), &new);
    signer.poll();
    assert_eq!(roots(&signer).len(), 2, "mended");
}

/// After a restart the old key is gone: what it signed is known from the live volumes.
#[tokio::test]
async fn a_ca_that_changed_while_nobody_looked_signs_at_once_beside_the_recovered_root() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    put(root.path(), &new);
    let old_root = old.roots()[0].clone();
    let bundle = TrustBundle::new(domain(), vec![old_root.clone()]).unwrap();
    let far = u64::MAX >> 20;
    let recovered = RecoveredTrust {
        roots: vec![crate::trust::LiveRoot {
            certificate: old_root.clone(),
            until: clock.now() + Duration::from_secs(1_000),
        }],
        jwt_authorities: vec![],
        bundle: Some(bundle.with_sequence(Some(far))),
        ..RecoveredTrust::default()
    };
    let signer = LocalSigner::open(config(root.path(), false), recovered, clock.clone());
    assert_eq!(roots(&signer), [new.roots()[0].clone(), old_root]);
    let sequence = bundle_of(&signer).sequence();
    assert_eq!(sequence, Some(far + 1), "it never goes back");
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0]);
    clock.forward(1_100);
    signer.poll();
    assert_eq!(roots(&signer), [new.roots()[0].clone()]);
}

#[test]
fn a_restart_without_a_change_keeps_the_sequence() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let ca = new_ca(&clock);
    put(root.path(), &ca);
    let bundle = TrustBundle::new(domain(), ca.roots().to_vec()).unwrap();
    let recovered =
        RecoveredTrust { bundle: Some(bundle.with_sequence(Some(7))), ..RecoveredTrust::default() };
    let signer = LocalSigner::open(config(root.path(), false), recovered, clock.clone());
    assert_eq!(bundle_of(&signer).sequence(), Some(7));
}

#[tokio::test]
async fn an_expired_ca_is_not_ready_and_says_so() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    put(root.path(), &new_ca(&clock));
    let signer = usable(root.path(), false, &clock);
    assert!(signer.status().ready.is_ok());
    clock.forward(366 * 86_400);
    let error = signer.status().ready.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    let (request, _) = request();
    let error = signer.sign(&request).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
}
