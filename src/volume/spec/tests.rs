use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    class::Class,
    volume::attribute::{NOT_YET, SUPPORTED},
};

const POD: [(&str, &str); 5] = [
    ("csi.storage.k8s.io/pod.namespace", "shop"),
    ("csi.storage.k8s.io/pod.name", "web-0"),
    ("csi.storage.k8s.io/pod.uid", "0b4f6a5e-52a9-4f3c-8b5a-0f3c2a3f7a11"),
    ("csi.storage.k8s.io/serviceAccount.name", "web"),
    ("csi.storage.k8s.io/ephemeral", "true"),
];

fn context(pairs: &[(&str, &str)]) -> VolumeContext {
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    POD.into_iter().chain(pairs.iter().copied()).map(own).collect()
}

fn parse_pairs(pairs: &[(&str, &str)]) -> Result<VolumeSpec, SpecError> {
    let trust_domain = "example.org".parse().unwrap();
    VolumeSpec::parse(&context(pairs), None, &trust_domain, &Limits::default())
}

fn parse_one(name: &str, value: &str) -> Result<VolumeSpec, SpecError> {
    parse_pairs(&[(&format!("{PREFIX}{name}"), value)])
}

#[test]
fn no_attributes_mean_the_defaults() {
    let spec = parse_pairs(&[]).unwrap();
    assert_eq!(spec.pod.namespace, "shop");
    assert_eq!(spec.pod.name, "web-0");
    assert_eq!(spec.pod.service_account, "web");
    assert_eq!((spec.ttl, spec.explicit_ttl), (Duration::from_secs(3600), false));
    assert_eq!(spec.key_algorithm, KeyAlgorithm::EcdsaP256);
    assert_eq!(spec.files, Layout::Tls.file_names(&"example.org".parse().unwrap()));
    assert_eq!((spec.ownership.file_mode, spec.ownership.dir_mode), (0o444, 0o755));
    assert_eq!((spec.socket.as_deref(), spec.jwt_files.len()), (Some("spiffe.sock"), 0));
}

#[test]
fn a_socket_has_any_plain_name_or_none() {
    for good in ["api.sock", "socket", "a", "0", &"s".repeat(64)] {
        assert_eq!(parse_one("socket", good).unwrap().socket.as_deref(), Some(good));
    }
    assert_eq!(parse_one("socket", "none").unwrap().socket, None);
    for bad in [
        "",
        ".",
        "..",
        "..data",
        ".svid",
        ".sock",
        "a/b",
        "a b",
        "a\0",
        "ä",
        "a%20",
        "bundle.json",
        "federated",
        "None ",
        &"s".repeat(65),
    ] {
        let error = parse_one("socket", bad).unwrap_err();
        assert!(matches!(error, SpecError::Invalid { name: "socket", .. }), "{bad:?}: {error}");
    }
}

#[test]
fn a_socket_and_a_file_never_have_one_name() {
    let clash = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        match parse_pairs(&pairs) {
            Ok(_) => false,
            Err(SpecError::NameClash { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(clash(&[("key-file", "spiffe.sock")]));
    assert!(clash(&[("key-file", ".spiffe.sock.tmp")]));
    assert!(clash(&[("socket", "tls.crt")]));
    assert!(clash(&[("socket", "a"), ("jwt", "a=b")]));
    assert!(clash(&[("socket", "a"), ("jwt", ".a.tmp=b")]));
    assert!(clash(&[("jwt", "tls.key=b")]));
    assert!(clash(&[("jwt", "a=b;a=c")]));
    assert!(!clash(&[("key-file", "spiffe.sock"), ("socket", "api.sock")]));
    assert!(!clash(&[("key-file", "spiffe.sock"), ("socket", "none")]));
}

#[test]
fn jwt_files_are_pairs_of_a_name_and_audiences() {
    let files = |text: &str| -> Vec<(String, Vec<String>)> {
        let spec = parse_one("jwt", text).unwrap();
        let pair = |file: JwtFile| (file.name, file.audience.as_slice().to_vec());
        spec.jwt_files.into_iter().map(pair).collect()
    };
    let pair = |name: &str, audience: &[&str]| {
        (name.to_owned(), audience.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(files("token=vault"), [pair("token", &["vault"])]);
    assert_eq!(
        files(" a.jwt = z , b ; b.jwt=https://sts.example/?a=b;"),
        [pair("a.jwt", &["b", "z"]), pair("b.jwt", &["https://sts.example/?a=b"])]
    );
    let many = (0..17).map(|n| format!("f{n}=a")).collect::<Vec<_>>();
    assert_eq!(files(&many[1..].join(";")).len(), 16);
    for (bad, says) in [
        ("", "write it like"),
        ("token", "write it like"),
        ("a=b;;c=d", "write it like"),
        ("=a", "1 to 255 bytes"),
        ("a/b=c", "without `/`"),
        ("..data=c", "begin with `..`"),
        ("bundle.json=c", "needs that name"),
        ("a=", "must not be empty"),
        ("a=b,,c", "must not be empty"),
        (&format!("a={}", vec!["b"; 33].join(",")), "at most 32 audiences"),
        (&format!("a={}", "b".repeat(4097)), "4096 bytes"),
        (&many.join(";"), "at most 16 files"),
    ] {
        let error = parse_one("jwt", bad).unwrap_err();
        assert!(matches!(error, SpecError::Invalid { name: "jwt", .. }), "{bad:?}: {error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn every_supported_attribute_counts() {
    for (name, value) in SUPPORTED.into_iter().zip([
        "2h",
        "ed25519",
        "a.example",
        "spiffe-ca",
        "Issuer",
        "awspca.cert-manager.io",
        "certs.d",
        "c",
        "k",
        "b",
        "all",
        "7",
        "8",
        "0400",
        "none",
        "token=vault",
    ]) {
        if ["issuer-kind", "issuer-group"].contains(&name) {
            // They say more about a name, and nothing alone.
            let error = parse_one(name, value).unwrap_err();
            assert!(error.to_string().contains("issuer-name beside it"), "{error}");
            let (named, name) = (("csi.svid.dev/issuer-name", "a"), format!("{PREFIX}{name}"));
            let with = parse_pairs(&[named, (&name, value)]).unwrap();
            assert_ne!(with, parse_pairs(&[named]).unwrap(), "{name}");
            continue;
        }
        assert_ne!(parse_one(name, value).unwrap(), parse_pairs(&[]).unwrap(), "{name}");
    }
    for algorithm in KeyAlgorithm::ALL {
        let spec = parse_one("key-algorithm", algorithm.as_str()).unwrap();
        assert_eq!(spec.key_algorithm, algorithm);
    }
}

#[test]
fn missing_or_malformed_pod_info_is_refused_by_name() {
    for (key, _) in POD {
        let rest = POD.into_iter().filter(|(k, _)| *k != key);
        let context = rest.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let td = "example.org".parse().unwrap();
        let error = VolumeSpec::parse(&context, None, &td, &Limits::default()).unwrap_err();
        assert_eq!(error, SpecError::MissingPodInfo { key });
        for bad in ["", "..", "a/b", "A B", "a\n", &"x".repeat(300)] {
            let error = parse_pairs(&[(key, bad)]).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
            assert_eq!(error.class(), Class::Invalid);
        }
    }
    let error = parse_pairs(&[("csi.storage.k8s.io/ephemeral", "false")]).unwrap_err();
    assert!(error.to_string().contains("inline"), "{error}");
}

#[test]
fn an_unknown_attribute_names_the_nearest_known() {
    for (key, nearest) in [
        ("csi.svid.dev/tt", "csi.svid.dev/ttl?"),
        ("csi.svid.dev/key-algoritm", "csi.svid.dev/key-algorithm?"),
        ("csi.svid.dev/", "csi.svid.dev/"),
        ("ttl", "csi.svid.dev/ttl?"),
        ("Mode", "csi.svid.dev/mode?"),
        ("csi.svid.dev", "csi.svid.dev/"),
    ] {
        let error = parse_pairs(&[(key, "x")]).unwrap_err().to_string();
        assert!(error.contains("unknown volume attribute"), "{error}");
        assert!(error.contains(nearest), "{error}");
    }
    // Others' keys are none of our business.
    for key in ["example.com/ttl", "csi.cert-manager.io/issuer-name", "csi.storage.k8s.io/new"] {
        parse_pairs(&[(key, "x")]).unwrap();
    }
}

#[test]
fn attributes_of_later_versions_are_refused_in_words_that_say_so() {
    for name in NOT_YET {
        for value in ["", "none", "spiffe.sock"] {
            let error = parse_one(name, value).unwrap_err();
            assert_eq!(error, SpecError::NotYetSupported { name });
            assert!(error.to_string().contains("not yet supported"));
        }
    }
}

#[test]
fn a_lifetime_out_of_bounds_is_refused_at_first_and_brought_within_later() {
    let limits = Limits {
        default_ttl: Duration::from_secs(600),
        min_ttl: Duration::from_secs(60),
        max_ttl: Duration::from_secs(1200),
    };
    let td: TrustDomain = "example.org".parse().unwrap();
    for (text, strict, lenient) in
        [("1m", Some(60), 60), ("20m", Some(1200), 1200), ("59s", None, 60), ("1201s", None, 1200)]
    {
        let context = context(&[("csi.svid.dev/ttl", text)]);
        let parsed = VolumeSpec::parse(&context, None, &td, &limits);
        assert_eq!(parsed.ok().map(|spec| spec.ttl.as_secs()), strict, "{text}");
        let spec = VolumeSpec::parse_lenient(&context, None, &td, &limits).unwrap();
        assert_eq!((spec.ttl.as_secs(), spec.explicit_ttl), (lenient, true));
    }
    let error = parse_one("ttl", "25h").unwrap_err().to_string();
    assert!(error.contains("25h") && error.contains("10s to 24h"), "{error}");
    for bad in ["", "1", "500ms", "forever", "-1h"] {
        let error = parse_one("ttl", bad).unwrap_err();
        assert!(matches!(error, SpecError::Invalid { name: "ttl", .. }), "{bad}");
    }
}

#[test]
fn an_fs_group_is_the_group_unless_an_attribute_is() {
    let td: TrustDomain = "example.org".parse().unwrap();
    let ownership = |pairs: &[(&str, &str)], group: Option<&str>| {
        VolumeSpec::parse(&context(pairs), group, &td, &Limits::default()).map(|s| s.ownership)
    };
    assert_eq!(ownership(&[], Some("2000")).unwrap().gid, Some(2000));
    assert_eq!(ownership(&[], Some("")).unwrap().gid, None);
    let own = ownership(&[("csi.svid.dev/gid", "3000")], Some("2000")).unwrap();
    assert_eq!((own.gid, own.file_mode), (Some(3000), 0o440));
    for bad in ["-1", "4294967295", "staff"] {
        assert!(matches!(ownership(&[], Some(bad)), Err(SpecError::MountGroup { .. })));
        assert!(parse_one("uid", bad).is_err() && parse_one("gid", bad).is_err());
    }
}

#[test]
fn a_context_that_no_record_could_hold_is_refused() {
    parse_pairs(&[("example.com/x", &"x".repeat(30 << 10))]).unwrap();
    let error = parse_pairs(&[("example.com/x", &"x".repeat(40 << 10))]).unwrap_err();
    assert!(matches!(error, SpecError::TooLarge { .. }));
}

#[test]
fn messages_show_little_of_a_value_and_nothing_unescaped() {
    let error = parse_one("ttl", &format!("\u{1b}[2J{}", "x".repeat(5000))).unwrap_err();
    let text = error.to_string();
    assert!(text.len() < 400 && !text.contains('\u{1b}'), "{text}");
}

proptest! {
    #[test]
    fn what_is_accepted_keeps_the_rules(
        pairs in proptest::collection::btree_map(
            prop_oneof![
                proptest::sample::select(SUPPORTED.to_vec()).prop_map(|name| format!("{PREFIX}{name}")),
                ".{0,12}",
            ],
            prop_oneof![
                "[0-9]{1,11}", "[0-9]{1,4}[hms]", "[a-z./]{0,8}", ".{0,20}",
                proptest::sample::select(vec!["tls", "certs.d", "pod-certificate", "rsa-2048", "0440"])
                    .prop_map(str::to_owned),
            ],
            0..6,
        ),
        group in proptest::option::of("[0-9]{0,11}|.{0,4}"),
    ) {
        let pod: BTreeMap<String, String> =
            POD.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let context: VolumeContext = pairs.into_iter().chain(pod).collect();
        let td: TrustDomain = "example.org".parse().unwrap();
        let limits = Limits::default();
        if let Ok(spec) = VolumeSpec::parse(&context, group.as_deref(), &td, &limits) {
            prop_assert!(spec.ttl >= limits.min_ttl && spec.ttl <= limits.max_ttl);
            prop_assert_eq!(spec.ownership.file_mode & !0o444, 0);
            let names = [spec.files.certificate.as_ref(), spec.files.key.as_ref(),
                Some(&spec.files.bundle), spec.files.combined.as_ref()];
            let names: Vec<&String> = names.into_iter().flatten().collect();
            let distinct: std::collections::BTreeSet<&String> = names.iter().copied().collect();
            prop_assert_eq!(names.len(), distinct.len());
            prop_assert!(names.iter().all(|n| !n.contains('/') && !n.starts_with("..") && !n.is_empty()));
            // A request that was accepted is accepted on every restart.
            prop_assert_eq!(VolumeSpec::parse_lenient(&context, group.as_deref(), &td, &limits), Ok(spec));
        }
    }
}

#[test]
fn dns_names_are_rendered_for_the_pod() {
    let names = |text| {
        let names = parse_one("dns-names", text).unwrap().dns_names;
        names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("{service-account}.{namespace}.svc"), ["web.shop.svc"]);
    assert_eq!(
        names("b.example, {pod-name}.a.example,b.example"),
        ["b.example", "web-0.a.example"]
    );
    let many: Vec<_> = (0..17).map(|n| format!("a{n}.example")).collect();
    for (bad, part) in [
        ("", "1 to 1024 bytes"),
        ("a.example,", "1 to 1024 bytes"),
        ("*.example", "'*'"),
        ("A.example", "'A'"),
        ("{pod-label}.example", "unknown variable"),
        ("{namespace-label:team}.example", "labels of namespaces"),
        ("a..example", "1 to 63 characters"),
        ("10.0.0.1", "IP address"),
        (&many.join(","), "at most 16"),
    ] {
        let error = parse_one("dns-names", bad).unwrap_err();
        assert!(error.to_string().contains(part), "{bad}: {error}");
    }
}

#[test]
fn an_issuer_is_named_as_kubernetes_names_it() {
    let spec = parse_pairs(&[
        ("csi.svid.dev/issuer-name", "a.b-c"),
        ("csi.svid.dev/issuer-kind", "Issuer"),
    ])
    .unwrap();
    let issuer = spec.issuer.unwrap();
    assert_eq!((issuer.name.as_str(), issuer.kind.as_deref()), ("a.b-c", Some("Issuer")));
    assert_eq!(issuer.group, None);
    let long = "x".repeat(254);
    for (name, value) in [
        ("issuer-name", ""),
        ("issuer-name", "A"),
        ("issuer-name", "a/b"),
        ("issuer-name", "-a"),
        ("issuer-name", &long),
        ("issuer-kind", "Is suer"),
        ("issuer-group", "x_y"),
    ] {
        let error = parse_one(name, value).unwrap_err();
        assert!(matches!(error, SpecError::Invalid { .. }), "{name} {value}: {error}");
    }
}
