//! The JWT key beside the CA.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::jose::{JwtError, JwtKey, VerifiedJwt, verify};

const LIFE: u64 = 300;

fn jwt_key() -> JwtKey {
    JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap()
}

fn put_jwt(directory: &Path, key: &JwtKey) {
    put_text(directory, &key.to_pem().unwrap());
}

/// As an operator replaces a file: all at once.
fn put_text(directory: &Path, text: &str) {
    let new = directory.join("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, directory.join("jwt.key")).unwrap();
}

fn jwt_request() -> JwtRequest {
    let (request, _) = request();
    JwtRequest {
        volume: request.volume,
        pod: request.pod,
        id: request.id,
        audience: vec!["reports".to_owned()],
        ttl: Duration::MAX / 4,
        pod_token: None,
    }
}

/// Whether it verifies with the bundle published now.
fn checked(
    token: &JwtSvid,
    signer: &LocalSigner,
    clock: &TestClock,
) -> Result<VerifiedJwt, JwtError> {
    let bundle = bundle_of(signer);
    let of = |domain: &TrustDomain| {
        (domain == bundle.trust_domain()).then(|| bundle.jwt_authorities().clone())
    };
    verify(token.token(), "reports", of, clock.now())
}

/// Signs, and checks the answer against the bundle published at that moment (invariant 6).
async fn issued(signer: &LocalSigner, clock: &TestClock) -> JwtSvid {
    let token = signer.sign_jwt(&jwt_request()).await.unwrap();
    let good = checked(&token, signer, clock).unwrap();
    assert_eq!(good.id, jwt_request().id);
    token
}

fn authorities(signer: &LocalSigner) -> Vec<JwtAuthority> {
    bundle_of(signer).jwt_authorities().to_vec()
}

fn of(key: &JwtKey) -> JwtAuthority {
    key.authority().clone()
}

/// A directory with a CA.
fn with_ca(clock: &TestClock) -> TempDir {
    let root = TempDir::new().unwrap();
    put(root.path(), &new_ca(clock));
    root
}

/// What the volumes tell after a restart of this signer.
fn recovered_from(signer: &LocalSigner) -> RecoveredTrust {
    let bundle = bundle_of(signer);
    RecoveredTrust {
        roots: vec![],
        jwt_authorities: bundle.jwt_authorities().to_vec(),
        bundle: Some(bundle),
        ..RecoveredTrust::default()
    }
}

fn restarted(directory: &Path, before: &LocalSigner, clock: &Arc<TestClock>) -> LocalSigner {
    LocalSigner::open(config(directory, false), recovered_from(before), clock.clone())
}

#[tokio::test]
async fn a_key_is_made_on_request_beside_the_ca_and_found_again() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let directory = root.path().join("ca");
    let first = usable(&directory, true, &clock);
    let file = directory.join("jwt.key");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    first.signs_jwt().unwrap();
    let token = issued(&first, &clock).await;
    assert_eq!(token.expires_at(), clock.now() + Duration::from_secs(LIFE));
    assert_eq!(token.issued_at(), clock.now());

    let before = fs::read(&file).unwrap();
    let again = usable(&directory, true, &clock);
    assert_eq!(fs::read(&file).unwrap(), before, "never made twice");
    assert_eq!(authorities(&again), authorities(&first));
    checked(&token, &again, &clock).unwrap();
    // A CA of before there were JWT-SVIDs gets its key too.
    fs::remove_file(&file).unwrap();
    usable(&directory, true, &clock).signs_jwt().unwrap();
    assert!(file.exists());
}

#[test]
fn of_many_that_start_at_once_one_makes_the_key() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    let all: Vec<_> = std::thread::scope(|scope| {
        let start = || authorities(&usable(root.path(), true, &clock));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| one.len() == 1 && *one == all[0]));
}

/// Invariant 4: killed in the middle of writing the key, or right after it.
#[tokio::test]
async fn a_making_that_was_interrupted_is_done_again() {
    let clock = TestClock::new();
    let root = with_ca(&clock);
    let half = root.path().join(".new-x");
    fs::write(&half, "-----BEGIN PRIVATE").unwrap();
    let signer = usable(root.path(), true, &clock);
    issued(&signer, &clock).await;
    assert!(!half.exists(), "it may have been a key");

    // The key was written and the CA was not.
    let root = TempDir::new().unwrap();
    let key = jwt_key();
    put_jwt(root.path(), &key);
    let signer = usable(root.path(), true, &clock);
    issued(&signer, &clock).await;
    assert_eq!(authorities(&signer), [of(&key)]);
}

#[tokio::test]
async fn without_a_key_x509_goes_on_and_the_reason_says_what_to_do() {
    let clock = TestClock::new();
    let root = with_ca(&clock);
    let signer = usable(root.path(), false, &clock);
    for error in
        [signer.signs_jwt().unwrap_err(), signer.sign_jwt(&jwt_request()).await.unwrap_err()]
    {
        let text = error.to_string();
        assert_eq!(error.class(), Class::NotReady, "{text}");
        assert!(text.contains("jwt.key") && text.contains("--ca-create"), "{text}");
    }
    assert_eq!(signer.refused(), 0, "nothing is wrong with having none");
    signed_by(&signer, &clock).await;
    assert!(authorities(&signer).is_empty());

    // Picked up as it appears: nobody had one to trust.
    let sequence = bundle_of(&signer).sequence();
    put_jwt(root.path(), &jwt_key());
    signer.poll();
    issued(&signer, &clock).await;
    assert!(bundle_of(&signer).sequence() > sequence);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_has_x509_only() {
    let clock = TestClock::new();
    let root = TempDir::new().unwrap();
    let directory = root.path().join("ca");
    usable(&directory, true, &clock);
    fs::remove_file(directory.join("jwt.key")).unwrap();
    // A directory in the way stands for all that keeps a file from being made.
    fs::create_dir(directory.join("jwt.key")).unwrap();
    let signer = usable(&directory, true, &clock);
    let error = signer.signs_jwt().unwrap_err();
    assert!(error.class() == Class::NotReady && error.to_string().contains("plain file"));
    signed_by(&signer, &clock).await;
}

#[tokio::test]
async fn a_key_that_cannot_serve_is_refused_and_counted_and_x509_goes_on() {
    let clock = TestClock::new();
    let root = with_ca(&clock);
    let (dir, file) = (root.path(), root.path().join("jwt.key"));
    let refusal = |words: &str| {
        let signer = usable(dir, false, &clock);
        let error = signer.signs_jwt().unwrap_err();
        assert_eq!((error.class(), signer.refused()), (Class::NotReady, 1), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        signer.poll();
        assert_eq!(signer.refused(), 1, "a state is counted once");
        assert!(authorities(&signer).is_empty());
        signer
    };
    put_jwt(dir, &jwt_key());
    for mode in [0o644, 0o640, 0o604, 0o700] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        refusal("chmod 0600");
    }
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(65_534), None).unwrap();
    refusal("uid 65534");
    fs::remove_file(&file).unwrap();
    for text in ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        put_text(dir, text);
        refusal("jwt.key");
    }
    let ed25519 = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    put_text(dir, &ed25519.to_pem());
    let signer = refusal("RSA");
    signed_by(&signer, &clock).await;

    put_jwt(dir, &jwt_key());
    signer.poll();
    issued(&signer, &clock).await;
    put_text(dir, "garbage");
    signer.poll();
    fs::remove_file(&file).unwrap();
    signer.poll();
    assert_eq!(signer.refused(), 3);
    issued(&signer, &clock).await;
}

/// Invariant 6: every token verifies against the bundle of its moment, and of every moment of its
/// life.
#[tokio::test]
async fn a_replaced_key_is_published_before_it_signs_and_the_old_one_while_a_token_lives() {
    let clock = TestClock::new();
    let root = with_ca(&clock);
    let (old, new) = (jwt_key(), jwt_key());
    put_jwt(root.path(), &old);
    let signer = usable(root.path(), false, &clock);
    issued(&signer, &clock).await;
    let first = bundle_of(&signer).sequence();

    put_jwt(root.path(), &new);
    signer.poll();
    assert_eq!(authorities(&signer), [of(&old), of(&new)]);
    let second = bundle_of(&signer).sequence();
    assert!(second > first);
    clock.forward(PROPAGATION - 1);
    signer.poll();
    let last = issued(&signer, &clock).await;
    assert!(last.token().starts_with(&prefix(&old)), "published for too short a time");

    clock.forward(1);
    signer.poll();
    assert!(issued(&signer, &clock).await.token().starts_with(&prefix(&new)));
    assert_eq!(authorities(&signer), [of(&new), of(&old)]);
    clock.forward(LIFE - 2);
    signer.poll();
    checked(&last, &signer, &clock).unwrap();
    clock.forward(100);
    signer.poll();
    assert_eq!(authorities(&signer), [of(&new)]);
    let end = bundle_of(&signer).sequence();
    assert!(end > second);
    signer.poll();
    assert_eq!(bundle_of(&signer).sequence(), end, "nothing changed");
}

/// The encoded header of its tokens.
fn prefix(key: &JwtKey) -> String {
    let claims = crate::jose::JwtClaims {
        id: jwt_request().id,
        audience: vec!["a".to_owned()],
        issued_at: UNIX_EPOCH,
        expires_at: UNIX_EPOCH + Duration::from_secs(1),
        issuer: None,
        jti: false,
        extra: Default::default(),
    };
    let token = key.sign(&claims).unwrap();
    token.token().split_once('.').unwrap().0.to_owned()
}

/// Invariant 6, over a restart: which tokens live is not known any more.
#[tokio::test]
async fn what_an_earlier_process_signed_verifies_to_its_end() {
    let clock = TestClock::new();
    let root = with_ca(&clock);
    let (old, new) = (jwt_key(), jwt_key());
    put_jwt(root.path(), &old);
    let first = usable(root.path(), false, &clock);
    let token = issued(&first, &clock).await;

    let second = restarted(root.path(), &first, &clock);
    assert_eq!(bundle_of(&second), bundle_of(&first), "no volume is rewritten");
    issued(&second, &clock).await;

    put_jwt(root.path(), &new);
    let third = restarted(root.path(), &second, &clock);
    assert_eq!(authorities(&third), [of(&new), of(&old)]);
    third.signs_jwt().unwrap();
    let error = third.sign_jwt(&jwt_request()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert!(error.retry_after().is_some() && error.to_string().contains("published first"));
    checked(&token, &third, &clock).unwrap();
    clock.forward(5);
    third.poll();
    issued(&third, &clock).await;
    clock.forward(LIFE - 6);
    third.poll();
    checked(&token, &third, &clock).unwrap();

    // And again, while the old one is only in the volumes.
    let fourth = restarted(root.path(), &third, &clock);
    assert_eq!(authorities(&fourth), [of(&new), of(&old)]);
    issued(&fourth, &clock).await;
    clock.forward(LocalJwtConfig::MAX_TTL.as_secs() + 60);
    fourth.poll();
    assert_eq!(authorities(&fourth), [of(&new)], "no token can live any more");
}

#[tokio::test]
async fn a_key_that_no_bundle_can_have_signs_nothing() {
    let (root, clock) = (TempDir::new().unwrap(), TestClock::new());
    put_jwt(root.path(), &jwt_key());
    let signer = open(root.path(), false, &clock);
    assert!(signer.bundles().current().is_none(), "there is no CA");
    let error = signer.sign_jwt(&jwt_request()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    put(root.path(), &new_ca(&clock));
    signer.poll();
    issued(&signer, &clock).await;
}

#[tokio::test]
async fn settings_shape_the_token() {
    let clock = TestClock::new();
    let root = with_ca(&clock);
    put_jwt(root.path(), &jwt_key());
    let mut config = config(root.path(), false);
    config.jwt.ttl = Duration::from_secs(60);
    config.jwt.issuer = Some("https://issuer.example.org".to_owned());
    config.jwt.jti = true;
    let signer = LocalSigner::open(config, RecoveredTrust::default(), clock.clone());
    let token = issued(&signer, &clock).await;
    assert_eq!(token.expires_at(), clock.now() + Duration::from_secs(60));
    let claims = checked(&token, &signer, &clock).unwrap().claims;
    assert_eq!(claims["iss"], "https://issuer.example.org");
    assert!(claims.contains_key("jti"));
    let short = JwtRequest { ttl: Duration::from_secs(20), ..jwt_request() };
    let token = signer.sign_jwt(&short).await.unwrap();
    assert_eq!(token.expires_at(), clock.now() + Duration::from_secs(20));
    let nobody = JwtRequest { audience: vec![], ..jwt_request() };
    assert_eq!(signer.sign_jwt(&nobody).await.unwrap_err().class(), Class::Invalid);
}
