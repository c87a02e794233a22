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
    LocalConfig { directory: directory.to_owned(), create, trust_domain: domain(), propagation }
}

fn open(directory: &Path, create: bool, clock: &Arc<TestClock>) -> Result<LocalSigner, CaError> {
    LocalSigner::open(config(directory, create), RecoveredTrust::default(), clock.clone())
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
    (SignRequest { volume, pod, id, ttl, csr }, key)
}

/// Signs, and checks the answer against the bundle published at that moment.
async fn signed_by(signer: &LocalSigner, clock: &TestClock) -> Certificate {
    let (request, key) = request();
    let svid = signer.sign(&request).await.unwrap();
    let bundle = signer.bundles().current();
    svid.verify(&request.id, key.spki_der(), &bundle.own, clock.now()).unwrap();
    signer.lock().rollover.active().roots()[0].clone()
}

fn roots(signer: &LocalSigner) -> Vec<Certificate> {
    signer.bundles().current().own.x509_authorities().to_vec()
}

fn refusal(directory: &Path, clock: &Arc<TestClock>) -> String {
    match open(directory, false, clock) {
        Ok(_) => panic!("it should be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_ca_is_made_on_request_only_and_found_again() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let directory = root.path().join("deep/ca");
    assert!(refusal(&directory, &clock).contains("--ca-create"));
    let first = open(&directory, true, &clock).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("tls.key")), 0o600);
    let certificate = roots(&first).remove(0);
    assert_eq!(certificate.uri_sans(), ["spiffe://example.org"], "an SVID without a path");
    let again = open(&directory, true, &clock).unwrap();
    assert_eq!(roots(&again), std::slice::from_ref(&certificate));
    let fixed = open(&directory, false, &clock).unwrap();
    assert_eq!(roots(&fixed), [certificate]);
    let files: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn of_many_that_start_at_once_one_makes_the_ca() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let all: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            let signer = open(root.path(), true, &clock).unwrap();
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
    let signer = open(root.path(), true, &clock).unwrap();
    assert_eq!(roots(&signer)[0].spki_der(), key.spki_der());
}

#[test]
fn files_that_cannot_serve_are_refused_with_what_to_do() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (dir, good, other) = (root.path(), new_ca(&clock), new_ca(&clock));
    let key = dir.join("tls.key");

    put(dir, &good);
    open(dir, false, &clock).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o700, 0o660] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        assert!(refusal(dir, &clock).contains("chmod 0600"), "{mode:o}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        open(dir, false, &clock).unwrap();
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
    assert!(open(dir, true, &clock).is_err(), "a certificate without its key is never replaced");

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
    let signer = open(root.path(), false, &clock).unwrap();
    let (request, key) = request();
    let leaf = signer.sign(&request).await.unwrap();
    fs::write(root.path().join("tls.crt"), leaf.chain_pem()).unwrap();
    put_key(root.path(), &key.to_pem());
    let message = refusal(root.path(), &clock);
    assert!(message.contains("CA"), "{message}");
}

/// As kubelet mounts a Secret: symlinks, `..data`, mode 0400, a read-only directory.
#[tokio::test]
async fn a_mounted_secret_serves_and_its_swap_is_followed() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let dir = root.path();
    let version = |name: &str, authority: &Authority| {
        fs::create_dir(dir.join(name)).unwrap();
        put(&dir.join(name), authority);
        let key = dir.join(name).join("tls.key");
        fs::set_permissions(key, Permissions::from_mode(0o400)).unwrap();
    };
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    version("..1", &old);
    symlink("..1", dir.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), dir.join(name)).unwrap();
    }
    let signer = open(dir, false, &clock).unwrap();
    assert_eq!(signed_by(&signer, &clock).await, old.roots()[0]);

    version("..2", &new);
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    signer.poll();
    clock.forward(PROPAGATION);
    signer.poll();
    assert_eq!(signed_by(&signer, &clock).await, new.roots()[0]);
}

/// Invariant 6: every signature verifies against the bundle of its moment, all the way.
#[tokio::test]
async fn a_changed_ca_is_in_the_bundle_before_it_signs_and_the_old_one_stays_while_it_is_used() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    put(root.path(), &old);
    let signer = open(root.path(), false, &clock).unwrap();
    let first = signer.bundles().current().own.sequence().unwrap();
    assert_eq!(signed_by(&signer, &clock).await, old.roots()[0]);

    put(root.path(), &new);
    signer.poll();
    assert_eq!(roots(&signer), [old.roots()[0].clone(), new.roots()[0].clone()]);
    let second = signer.bundles().current().own.sequence().unwrap();
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
    let last = signer.bundles().current().own.sequence().unwrap();
    assert!(last > second);
    signer.poll();
    assert_eq!(signer.bundles().current().own.sequence(), Some(last), "nothing changed");
}

/// Invariant 3, for the CA itself.
#[tokio::test]
async fn garbage_in_the_directory_does_not_stop_the_ca_in_memory() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let (old, new) = (new_ca(&clock), new_ca(&clock));
    put(root.path(), &old);
    let signer = open(root.path(), false, &clock).unwrap();

    fs::write(root.path().join("tls.crt"), new.certificate_pem()).unwrap();
    signer.poll();
    signer.poll();
    assert_eq!(signer.reload_failures(), 1, "a state is counted once, however long it lasts");
    fs::write(root.path().join("tls.crt"), "garbage").unwrap();
    signer.poll();
    fs::remove_file(root.path().join("tls.crt")).unwrap();
    fs::remove_file(root.path().join("tls.key")).unwrap();
    signer.poll();
    assert_eq!(signer.reload_failures(), 3);
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
        bundle: Some(bundle.with_sequence(Some(far))),
    };
    let signer = LocalSigner::open(config(root.path(), false), recovered, clock.clone()).unwrap();
    assert_eq!(roots(&signer), [new.roots()[0].clone(), old_root]);
    let sequence = signer.bundles().current().own.sequence();
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
    let recovered = RecoveredTrust { roots: vec![], bundle: Some(bundle.with_sequence(Some(7))) };
    let signer = LocalSigner::open(config(root.path(), false), recovered, clock.clone()).unwrap();
    assert_eq!(signer.bundles().current().own.sequence(), Some(7));
}

#[tokio::test]
async fn an_expired_ca_is_not_ready_and_says_so() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    put(root.path(), &new_ca(&clock));
    let signer = open(root.path(), false, &clock).unwrap();
    assert!(signer.status().ready.is_ok());
    clock.forward(366 * 86_400);
    let error = signer.status().ready.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    let (request, _) = request();
    let error = signer.sign(&request).await.unwrap_err();
    assert_ne!(error.class(), Class::Invalid, "{error}");
}
