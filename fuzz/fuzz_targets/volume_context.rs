//! Volume attributes from a hostile pod: one `key=value` a line. Pod info is kubelet's and always
//! there, unless the input overrides it.

#![no_main]

use std::{collections::HashMap, time::Duration};

use libfuzzer_sys::fuzz_target;
use svid_csi::{
    id::TrustDomain,
    volume::{Limits, VolumeContext, VolumeSpec},
};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

const POD_INFO: [(&str, &str); 5] = [
    ("csi.storage.k8s.io/pod.name", "web-0"),
    ("csi.storage.k8s.io/pod.namespace", "shop"),
    ("csi.storage.k8s.io/pod.uid", "3f0e1c2a-5b7d-4c8e-9a10-2b3c4d5e6f70"),
    ("csi.storage.k8s.io/serviceAccount.name", "web"),
    ("csi.storage.k8s.io/ephemeral", "true"),
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut mount_group = None;
    let mut attributes: HashMap<String, String> =
        POD_INFO.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    for (key, value) in text.split('\n').filter_map(|line| line.split_once('=')) {
        if key == "fsGroup" {
            mount_group = Some(value);
        } else {
            attributes.insert(key.to_owned(), value.to_owned());
        }
    }
    attributes.insert(TOKENS.to_owned(), "a-secret-token".to_owned());

    let context = VolumeContext::from(attributes);
    assert!(context.get(TOKENS).is_none(), "the token is kept");
    let json = serde_json::to_string(&context).expect("a map of strings");
    let read: VolumeContext = serde_json::from_str(&json).expect("its own form");
    assert!(read == context);

    let domain: TrustDomain = "example.org".parse().expect("a trust domain");
    let limits = Limits {
        default_ttl: Duration::from_secs(3600),
        min_ttl: Duration::from_secs(10),
        max_ttl: Duration::from_secs(86_400),
    };
    if let Ok(spec) = VolumeSpec::parse(&context, mount_group, &domain, &limits) {
        assert!(spec.ttl >= limits.min_ttl && spec.ttl <= limits.max_ttl);
        assert_eq!(spec.ownership.file_mode & !0o444, 0, "files are for reading");
        assert_ne!(spec.ownership.file_mode, 0, "someone can read them");
        file_names(&spec);
        let lenient = VolumeSpec::parse_lenient(&context, mount_group, &domain, &limits);
        let lenient = lenient.expect("what is accepted is accepted after a restart");
        assert_eq!(lenient.ttl, spec.ttl);
    }
    if let Ok(spec) = VolumeSpec::parse_lenient(&context, mount_group, &domain, &limits) {
        assert!(spec.ttl >= limits.min_ttl && spec.ttl <= limits.max_ttl);
    }
});

/// No attribute leads out of the volume, into its private parts or onto another file of the set.
fn file_names(spec: &VolumeSpec) {
    let files = &spec.files;
    let optional = [&files.certificate, &files.key, &files.combined, &spec.socket];
    let mut names: Vec<&str> = optional.into_iter().flatten().map(String::as_str).collect();
    names.push(&files.bundle);
    for file in &spec.jwt_files {
        assert!(!file.audience.as_slice().is_empty() && spec.jwt_files.len() <= 16);
        names.push(&file.name);
    }
    let temporary = spec.socket.as_ref().map(|socket| format!(".{socket}.tmp"));
    names.extend(temporary.as_deref());
    for name in &names {
        assert!(!name.is_empty() && name.len() <= 255, "{name:?}");
        assert!(!name.contains(['/', '\0']) && !name.starts_with(".."), "{name:?}");
        assert!(![".", ".svid", "bundle.json", "federated"].contains(name), "{name:?}");
    }
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}
