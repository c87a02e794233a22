//! JWT-SVIDs as files: part of the set, rotated with it, never worse (DESIGN.md §4).

use std::{fs, sync::atomic::Ordering, time::Duration};

use svid_csi::{
    class::Class,
    clock::Clock,
    jose::{JwtSvid, verify},
    pki::TrustBundle,
};

use crate::{
    plugin::{Pod, TRUST_DOMAIN, eventually, on_a_node},
    workload_api::Ground,
};

fn pod(n: usize) -> Pod {
    Pod::new(n).with("jwt", "vault.jwt=vault;two.jwt=b,a")
}

/// The token in a file, which is good now.
#[track_caller]
fn token(ground: &Ground, pod: &Pod, file: &str, audience: &[&str]) -> JwtSvid {
    let text = fs::read_to_string(ground.machine.target(pod).join(file)).unwrap();
    assert_eq!(text, text.trim(), "no newline");
    let json = fs::read(ground.machine.target(pod).join("bundle.json")).unwrap();
    let bundle = TrustBundle::from_jwks(TRUST_DOMAIN.parse().unwrap(), &json).unwrap();
    let jwt = bundle.jwt_authorities();
    let now = ground.machine.clock.now();
    for audience in audience {
        let verified = verify(&text, audience, |_| Some(jwt.clone()), now).unwrap();
        assert_eq!(verified.id.as_str(), pod.id());
    }
    let svid = JwtSvid::parse(&text).unwrap();
    assert_eq!(svid.audience(), audience);
    svid
}

fn shown(ground: &Ground, pod: &Pod) -> (String, String) {
    let token = fs::read_to_string(ground.machine.target(pod).join("vault.jwt")).unwrap();
    (token, ground.machine.set(pod).svid.serial_hex().to_owned())
}

/// Renewed at half their life, with the certificate as it was; a failure leaves the last ones; a
/// restart issues nothing that is fresh (invariants 3 and 4).
#[test]
fn tokens_are_part_of_the_set_and_rotate_without_a_new_certificate() {
    on_a_node(async || {
        let mut ground = Ground::new();
        let pod = pod(1);
        ground.publish(&pod).await;
        token(&ground, &pod, "vault.jwt", &["vault"]);
        token(&ground, &pod, "two.jwt", &["a", "b"]);
        assert_eq!(ground.signer.signed.load(Ordering::SeqCst), 3);
        let target = ground.machine.target(&pod);
        assert!(fs::read_link(target.join("vault.jwt")).unwrap().starts_with("..data"));
        let first = shown(&ground, &pod);

        ground.terminate().await;
        ground.start();
        assert_eq!(shown(&ground, &pod), first);
        assert_eq!(ground.signer.signed.load(Ordering::SeqCst), 3, "nothing is issued again");

        ground.signer.refuse(Some(Class::Unavailable));
        ground.machine.clock.set_ahead(Duration::from_secs(210));
        eventually("the failure shows", async || ground.plugin().abnormal(&ground.machine, &pod))
            .await;
        assert_eq!(shown(&ground, &pod), first);
        ground.signer.refuse(None);
        eventually("they are renewed", async || (shown(&ground, &pod).0 != first.0).then_some(()))
            .await;
        assert_eq!(shown(&ground, &pod).1, first.1, "the certificate is the same");
        token(&ground, &pod, "vault.jwt", &["vault"]);
        token(&ground, &pod, "two.jwt", &["a", "b"]);
        eventually("nothing fails any more", async || {
            ground.plugin().abnormal(&ground.machine, &pod).is_none().then_some(())
        })
        .await;
    });
}

/// Refused before anything is done for it, in words that say what to set; whoever lives goes on.
#[test]
fn without_a_key_a_volume_with_tokens_is_refused_and_a_live_one_goes_on() {
    on_a_node(async || {
        let ground = Ground::without_jwt();
        let pod = pod(1);
        let refused = ground.machine.try_publish(ground.plugin(), &pod).await.unwrap_err();
        assert_eq!(refused.class(), Class::NotReady);
        let text = refused.to_string();
        assert!(text.contains("csi.svid.dev/jwt") && text.contains("set a JWT key"), "{text}");
        assert!(!ground.machine.target(&pod).exists());
        assert_eq!(ground.signer.signed.load(Ordering::SeqCst), 0);
        ground.publish(&Pod::new(2)).await;
    });
}

#[test]
fn a_volume_whose_signer_lost_its_key_keeps_what_it_has() {
    on_a_node(async || {
        let mut ground = Ground::new();
        let pod = pod(1);
        ground.publish(&pod).await;
        let first = shown(&ground, &pod);
        ground.terminate().await;
        ground.signer.refuse(Some(Class::NotReady));
        ground.machine.clock.set_ahead(Duration::from_secs(250));
        ground.start();
        ground.publish(&pod).await;
        eventually("the failure shows", async || ground.plugin().abnormal(&ground.machine, &pod))
            .await;
        assert_eq!(shown(&ground, &pod), first);
    });
}
