//! The local CA as its owner handles it: replaced, chained, lost, shared.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use svid_csi::{
    clock::{Clock, SystemClock},
    pki::{Authority, KeyAlgorithm},
};

use svid_csi_proto::csi::v1::{ProbeRequest, identity_client::IdentityClient};

use crate::{
    plugin::{Node, Pod, TRUST_DOMAIN, eventually, on_a_node},
    volume::{Set, checked},
};

pub fn now() -> SystemTime {
    SystemClock.now()
}

pub fn new_ca() -> Authority {
    let day = Duration::from_secs(86_400);
    Authority::create(&TRUST_DOMAIN.parse().unwrap(), KeyAlgorithm::EcdsaP256, day, now()).unwrap()
}

/// The certificate first: in between, the plugin sees a pair that doesn't match.
pub fn put(directory: &Path, authority: &Authority) {
    fs::write(directory.join("tls.crt"), authority.certificate_pem()).unwrap();
    fs::write(directory.join("tls.key"), authority.key_pem().as_bytes()).unwrap();
}

fn trusts(set: &Set, authority: &Authority) -> bool {
    set.bundle.contains(&authority.roots()[0])
}

fn signed_by(set: &Set, authority: &Authority) -> bool {
    set.svid.leaf().issuer() == authority.certificate().subject()
}

/// Invariant 6, seen from a volume: both roots first, then the new signer, and the old root only
/// as long as it is needed.
#[test]
fn a_replaced_ca_reaches_every_volume_before_it_signs() {
    on_a_node(async || {
        let node = Node::started(&["--ca-propagation", "3s"]).await;
        let pods = [Pod::new(1).with("ttl", "10s"), Pod::new(2)];
        for pod in &pods {
            node.publish(pod).await.unwrap();
        }
        let long_lived = checked(&node, &pods[1]).svid.serial_hex().to_owned();
        let new = new_ca();
        put(&node.ca_dir(), &new);
        let mut trusted_before_it_signed = false;
        eventually("the new CA signs", async || {
            for pod in &pods {
                let set = Set::read(&node.target(pod)).unwrap();
                set.check(&pod.id()).unwrap();
                if signed_by(&set, &new) {
                    assert!(trusted_before_it_signed);
                    return Some(());
                }
                trusted_before_it_signed |= trusts(&set, &new);
            }
            None
        })
        .await;
        for pod in &pods {
            let set = checked(&node, pod);
            assert!(trusts(&set, &new) && set.bundle.x509_authorities().len() == 2);
        }
        let long = checked(&node, &pods[1]);
        assert_eq!(long.svid.serial_hex(), long_lived, "a bundle change issues nothing");
    });
}

/// The old key is gone with the process: bundles first, then the new key.
#[test]
fn a_ca_replaced_while_the_plugin_was_away_is_trusted_before_anything_is_served() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod);
        node.kill().await;
        let new = new_ca();
        put(&node.ca_dir(), &new);
        node.start().await;
        // csi.sock answers: every volume trusts the new CA already, and still the old.
        let after = checked(&node, &pod);
        assert_eq!(after.svid.serial_hex(), before.svid.serial_hex());
        assert!(trusts(&after, &new));
        assert!(after.bundle.contains(&before.bundle.x509_authorities()[0]));
        let other = Pod::new(2);
        node.publish(&other).await.unwrap();
        assert!(signed_by(&checked(&node, &other), &new));
    });
}

#[test]
fn an_intermediate_travels_in_the_chain_and_its_root_in_the_bundle() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        let ca = node.ca_dir();
        fs::create_dir_all(&ca).unwrap();
        openssl_intermediate(&ca);
        node.set_extra(&["--default-ttl", "10m"]);
        node.start().await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let set = checked(&node, &pod);
        assert_eq!(set.svid.chain().len(), 2);
        assert_eq!(
            set.bundle.to_pem().trim(),
            fs::read_to_string(ca.join("ca.crt")).unwrap().trim()
        );
        let target = node.target(&pod);
        let verified = std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
            .arg(target.join("ca.crt"))
            .arg("-untrusted")
            .arg(target.join("tls.crt"))
            .arg(target.join("tls.crt"))
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    });
}

/// A root and an intermediate as someone else's tool makes them, with names that repeat an
/// attribute.
fn openssl_intermediate(ca: &Path) {
    let script = r#"
set -e
openssl ecparam -name prime256v1 -genkey -noout -out root.key
openssl req -x509 -new -key root.key -days 2 -subj "/DC=org/DC=example/OU=a/OU=b/CN=root" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out tls.key
openssl req -new -key tls.key -subj "/DC=org/DC=example/CN=intermediate" -out i.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' > i.ext
openssl x509 -req -in i.csr -CA ca.crt -CAkey root.key -CAcreateserial -days 1 -extfile i.ext -out tls.crt
chmod 600 tls.key
rm root.key i.csr i.ext
"#;
    let output = std::process::Command::new("sh").args(["-c", script]).current_dir(ca).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_ca_directory_that_goes_away_stops_nothing_that_lives() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let pod = Pod::new(1).with("ttl", "10s");
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod).svid.serial_hex().to_owned();
        fs::remove_dir_all(node.ca_dir()).unwrap();
        fs::create_dir_all(node.ca_dir()).unwrap();
        fs::write(node.ca_dir().join("tls.crt"), "garbage").unwrap();
        eventually("it is renewed all the same", async || {
            (Set::read(&node.target(&pod)).unwrap().svid.serial_hex() != before).then_some(())
        })
        .await;
        node.publish(&Pod::new(2)).await.unwrap();
    });
}

#[test]
fn two_plugins_that_start_at_once_on_one_directory_share_one_ca() {
    on_a_node(async || {
        let shared = tempfile::tempdir().unwrap();
        let ca = shared.path().join("ca");
        // The last --ca-dir counts.
        let arguments = ["--ca-dir", ca.to_str().unwrap()];
        let mut nodes = [Node::new(&arguments), Node::new(&arguments)];
        for node in &mut nodes {
            node.launch();
        }
        let pod = Pod::new(1);
        let mut roots = Vec::new();
        for node in &nodes {
            eventually("it answers", async || node.channel().await.ok()).await;
            node.publish(&pod).await.unwrap();
            roots.push(checked(node, &pod).bundle.to_pem());
        }
        assert_eq!(roots[0], roots[1]);
    });
}

/// Probe and `/readyz` tell the truth; the volumes keep what they have (invariant 3) until a new
/// CA makes them whole again.
#[test]
fn an_expired_ca_is_not_ready_until_it_is_replaced() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        fs::create_dir_all(node.ca_dir()).unwrap();
        let (minute, begun) = (Duration::from_secs(60), now() - Duration::from_secs(48));
        let domain = TRUST_DOMAIN.parse().unwrap();
        let short = Authority::create(&domain, KeyAlgorithm::EcdsaP256, minute, begun).unwrap();
        put(&node.ca_dir(), &short);
        let key = fs::Permissions::from_mode(0o600);
        fs::set_permissions(node.ca_dir().join("tls.key"), key).unwrap();
        node.start().await;
        let ready = async || {
            let mut identity = IdentityClient::new(node.channel().await.unwrap());
            identity.probe(ProbeRequest {}).await.unwrap().into_inner().ready.unwrap()
        };
        assert!(ready().await);
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let set = checked(&node, &pod);
        assert!(set.svid.not_after() <= short.not_after(), "capped at its issuer's end");

        eventually("the CA expires", async || (!ready().await).then_some(())).await;
        let renewals = node.log().matches(r#""message":"renewed""#).count();
        assert!(renewals <= 8, "{renewals} renewals of a CA that was about to end");
        let result = node.publish(&Pod::new(2)).await;
        assert!(result.unwrap_err().message().contains("expired"));
        Set::read(&node.target(&pod)).expect("the files stay");

        put(&node.ca_dir(), &new_ca());
        eventually("the new CA signs", async || ready().await.then_some(())).await;
        node.publish(&Pod::new(2)).await.unwrap();
        eventually("the volume is whole again", async || {
            Set::read(&node.target(&pod)).unwrap().check(&pod.id()).ok()
        })
        .await;
    });
}
