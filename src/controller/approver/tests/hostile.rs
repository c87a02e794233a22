//! Invariant 5: whatever a node writes, it gets the identities of its own pods and no others.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// One thing that whoever owns a node may write as it likes.
#[derive(Clone, Debug)]
enum Lie {
    Annotation(String, String),
    Drop(usize),
    Expiration(Option<i32>),
    Usages(Vec<String>),
    Id(String),
    Bytes(usize, u8),
    Phase(String),
    Label(String),
}

fn lie() -> impl Strategy<Value = Lie> {
    let word = select(vec![
        "",
        "shop",
        "web-0",
        "web-0-uid",
        "kube-system",
        "b-0",
        "b-0-uid",
        "1h",
        "9s",
        "48h",
        "rsa-2048",
        "ecdsa-p256",
        "web.shop.svc",
        "*.svc",
        "a-uid",
        "b-uid",
    ]);
    let key = select(vec![
        annotation::POD_NAMESPACE,
        annotation::POD_NAME,
        annotation::POD_UID,
        annotation::TTL,
        annotation::KEY_ALGORITHM,
        annotation::DNS_NAMES,
        "csi.svid.dev/spiffe-id",
        "kubernetes.io/config.mirror",
    ]);
    let id = select(vec![
        "spiffe://example.org/ns/shop/sa/web",
        "spiffe://example.org/ns/shop/sa/admin",
        "spiffe://example.org/svid.dev/controller",
        "spiffe://example.org",
        "spiffe://other.org/ns/shop/sa/web",
    ]);
    let usage = select(vec!["digital signature", "server auth", "client auth", "cert sign"]);
    prop_oneof![
        (key, word.clone()).prop_map(|(k, v)| Lie::Annotation(k.to_owned(), v.to_owned())),
        (0usize..6).prop_map(Lie::Drop),
        prop::option::of(prop_oneof![Just(600), Just(3600), any::<i32>()])
            .prop_map(Lie::Expiration),
        vec(usage.prop_map(str::to_owned), 0..5).prop_map(Lie::Usages),
        id.prop_map(|id| Lie::Id(id.to_owned())),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Lie::Bytes(at, byte)),
        select(vec!["Running", "Failed", "Pending", ""]).prop_map(|p| Lie::Phase(p.to_owned())),
        word.prop_map(|uid| Lie::Label(uid.to_owned())),
    ]
}

fn tell(world: &mut World, lie: Lie) {
    match lie {
        Lie::Annotation(key, value) => world.annotate(&key, &value),
        Lie::Drop(at) => {
            let key = world.request.annotations.keys().nth(at).cloned();
            key.map(|key| world.request.annotations.remove(&key));
        }
        Lie::Expiration(seconds) => world.request.expiration_seconds = seconds,
        Lie::Usages(usages) => world.request.usages = usages,
        Lie::Id(id) => world.request.request = csr(&id, KeyAlgorithm::EcdsaP256),
        Lie::Bytes(at, byte) => {
            let length = world.request.request.len();
            world.request.request[at % length] ^= byte;
        }
        Lie::Phase(phase) => world.pod.as_mut().unwrap().phase = phase,
        Lie::Label(uid) => {
            world.request.labels.insert(NODE_UID_LABEL.to_owned(), uid);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn inv_5_no_lie_gives_another_identity(lies in vec(lie(), 0..5)) {
        let world = World::of(|world| lies.into_iter().for_each(|lie| tell(world, lie)));
        if let Decision::Approve(grant) = world.decide() {
            prop_assert_eq!(grant.id.as_str(), ID);
            prop_assert!(grant.ttl <= days(1) && grant.ttl >= Duration::from_secs(10));
            prop_assert!(grant.dns_names.is_empty());
            let pod = world.read().pod.unwrap();
            prop_assert_eq!(pod.name, ObjectName::new("shop", "web-0"));
        }
    }

    /// Node `a` asks for whatever pod there is: only one on `a` is ever granted.
    #[test]
    fn inv_5_a_node_reaches_no_further_than_its_pods(
        node in "[ab]",
        namespace in select(vec!["shop", "kube-system"]),
        account in "[a-c]{1,2}",
        asked in "[a-c]{1,2}",
    ) {
        let world = World::of(|world| {
            world.pod = Some(pod(namespace, "b-0", &node, &account));
            world.annotate(annotation::POD_NAMESPACE, namespace);
            world.annotate(annotation::POD_NAME, "b-0");
            world.annotate(annotation::POD_UID, "b-0-uid");
            world.service_account.as_mut().unwrap().namespace = namespace.to_owned();
            world.service_account.as_mut().unwrap().name = account.clone();
            world.namespace.as_mut().unwrap().name = namespace.to_owned();
            let id = format!("spiffe://example.org/ns/{namespace}/sa/{asked}");
            world.request.request = csr(&id, KeyAlgorithm::EcdsaP256);
        });
        let granted = matches!(world.decide(), Decision::Approve(_));
        prop_assert_eq!(granted, node == "a" && asked == account);
    }
}
