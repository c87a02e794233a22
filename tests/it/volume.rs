//! What a pod finds in its volume.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::SystemTime,
};

use svid_csi::{
    id::{SpiffeId, TrustDomain},
    pki::{PrivateKey, TrustBundle, X509Svid, certificates_from_pem},
};

use crate::plugin::{Node, Pod, TRUST_DOMAIN, on_a_node};

/// A set as a pod reads it through one resolved `..data`.
pub struct Set {
    pub svid: X509Svid,
    pub key: PrivateKey,
    pub bundle: TrustBundle,
}

// === impl Set ===

impl Set {
    /// Reads the default layout; `Err` says what doesn't fit.
    pub fn read(volume: &Path) -> Result<Self, String> {
        let data = fs::read_link(volume.join("..data")).map_err(|e| format!("..data: {e}"))?;
        Self::read_dir(&volume.join(data))
    }

    pub fn read_dir(dir: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"))
        };
        let chain = certificates_from_pem(&read("tls.crt")?).map_err(|e| e.to_string())?;
        let svid = X509Svid::from_chain(chain).map_err(|e| e.to_string())?;
        let key = PrivateKey::from_pem(&read("tls.key")?).map_err(|e| e.to_string())?;
        let domain: TrustDomain = TRUST_DOMAIN.parse().map_err(|e| format!("{e}"))?;
        let bundle = TrustBundle::from_pem(domain, &read("ca.crt")?).map_err(|e| e.to_string())?;
        Ok(Self { svid, key, bundle })
    }

    /// Key, certificate and bundle belong together, and are this pod's (invariant 2).
    pub fn check(&self, id: &str) -> Result<(), String> {
        let id: SpiffeId = id.parse().map_err(|e| format!("{e}"))?;
        #[expect(clippy::disallowed_methods, reason = "a pod asks its machine's clock")]
        let now = SystemTime::now();
        let spki = self.key.spki_der();
        self.svid.verify(&id, spki, &self.bundle, now).map_err(|e| e.to_string())
    }
}

/// The set of a volume, checked.
#[track_caller]
pub fn checked(node: &Node, pod: &Pod) -> Set {
    let set = Set::read(&node.target(pod)).unwrap();
    set.check(&pod.id()).unwrap();
    set
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn a_published_volume_has_the_whole_set() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let target = node.target(&pod);
        let set = checked(&node, &pod);
        assert_eq!(set.svid.chain().len(), 1);
        assert_eq!(names(&target), ["bundle.json", "ca.crt", "spiffe.sock", "tls.crt", "tls.key"]);
        let json = fs::read(target.join("bundle.json")).unwrap();
        let bundle = TrustBundle::from_jwks(TRUST_DOMAIN.parse().unwrap(), &json).unwrap();
        assert_eq!(bundle.x509_authorities(), set.bundle.x509_authorities());
        assert!(bundle.sequence().is_some());
        assert_eq!(mode(&target), 0o755);
        assert_eq!(mode(&target.join("tls.key")), 0o444);
        assert_eq!(mode(&target.join(".svid")), 0o700);
        assert_eq!(mode(&target.join(".svid/record.json")), 0o600);
        let record = node.record(&pod).unwrap();
        assert_eq!(record["state"], "live", "{record}");
        assert_eq!(record["spiffeId"], pod.id());
        let key = fs::read_to_string(target.join("tls.key")).unwrap();
        let secret: String = key.lines().nth(1).unwrap().to_owned();
        assert!(!record.to_string().contains(&secret) && !node.log().contains(&secret));
        node.unpublish(&pod).await.unwrap();
        assert!(!target.exists() && node.mounts().is_empty());
    });
}

#[test]
fn layouts_and_file_names() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let layouts: [(&str, &[&str]); 4] = [
            ("tls", &["bundle.json", "ca.crt", "spiffe.sock", "tls.crt", "tls.key"]),
            (
                "spiffe-helper",
                &["bundle.json", "spiffe.sock", "svid.pem", "svid_bundle.pem", "svid_key.pem"],
            ),
            ("certs.d", &["bundle.json", "ca.crt", "client.cert", "client.key", "spiffe.sock"]),
            (
                "pod-certificate",
                &[
                    "bundle.json",
                    "credential-bundle.private-key.pem",
                    "example.org.x509.pem",
                    "spiffe.sock",
                ],
            ),
        ];
        for (n, (layout, files)) in layouts.into_iter().enumerate() {
            let pod = Pod::new(n).with("layout", layout);
            node.publish(&pod).await.unwrap();
            assert_eq!(names(&node.target(&pod)), files, "{layout}");
        }
        let pod = Pod::new(9)
            .with("certificate-file", "my.crt")
            .with("key-file", "my.key")
            .with("bundle-file", "my-ca.crt")
            .with("combined-file", "all.pem");
        node.publish(&pod).await.unwrap();
        let target = node.target(&pod);
        let files = ["all.pem", "bundle.json", "my-ca.crt", "my.crt", "my.key", "spiffe.sock"];
        assert_eq!(names(&target), files);
        let all = fs::read_to_string(target.join("all.pem")).unwrap();
        let parts = ["my.key", "my.crt"].map(|n| fs::read_to_string(target.join(n)).unwrap());
        assert_eq!(all, parts.concat(), "the key comes first");
    });
}

#[test]
fn ownership_and_modes() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        // attributes, fsGroup, then: uid, gid, directory's mode, files' mode
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>, u32, u32, u32, u32);
        let cases: [Case<'_>; 7] = [
            (&[], None, 0, 0, 0o755, 0o444),
            (&[], Some("2000"), 0, 2000, 0o750, 0o440),
            (&[("uid", "1000")], None, 1000, 0, 0o700, 0o400),
            (&[("gid", "3000")], Some("2000"), 0, 3000, 0o750, 0o440),
            (&[("uid", "1000"), ("gid", "3000")], None, 1000, 3000, 0o750, 0o440),
            (&[("mode", "0400")], Some("2000"), 0, 2000, 0o700, 0o400),
            (&[("mode", "444"), ("uid", "7")], None, 7, 0, 0o755, 0o444),
        ];
        for (n, (attributes, group, uid, gid, dir_mode, file_mode)) in cases.into_iter().enumerate()
        {
            let mut pod = Pod::new(n);
            for (key, value) in attributes {
                pod = pod.with(key, value);
            }
            pod.fs_group = group.map(ToOwned::to_owned);
            node.publish(&pod).await.unwrap();
            let target = node.target(&pod);
            for (path, expected) in [
                (target.clone(), dir_mode),
                (target.join("..data"), dir_mode),
                (target.join("tls.key"), file_mode),
                (target.join("tls.crt"), file_mode),
            ] {
                let metadata = fs::metadata(&path).unwrap();
                let found = (metadata.uid(), metadata.gid(), mode(&path));
                assert_eq!(found, (uid, gid, expected), "{attributes:?} {group:?} {path:?}");
            }
            assert_eq!(fs::metadata(target.join(".svid")).unwrap().uid(), 0);
        }
    });
}

#[test]
fn key_algorithms() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let all = ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-2048", "rsa-4096"];
        for (n, algorithm) in all.into_iter().enumerate() {
            let pod = Pod::new(n).with("key-algorithm", algorithm);
            node.publish(&pod).await.unwrap();
            assert_eq!(checked(&node, &pod).key.algorithm().to_string(), algorithm);
        }
    });
}
