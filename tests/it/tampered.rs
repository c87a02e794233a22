//! What a container that can make its volume writable (`CAP_SYS_ADMIN`) makes a restarted driver
//! believe: nothing (invariants 1, 5 and 6 of DESIGN.md §2).

use std::{fs, path::Path, time::Duration};

use svid_csi::pki::{Authority, Csr, KeyAlgorithm, PrivateKey, X509Svid};

use crate::{
    local_ca::{new_ca, now},
    plugin::{Node, Pod, eventually, on_a_node},
    volume::{Set, checked},
};

/// A node with a volume of the attacker and one of somebody else, and the driver away.
struct Scene {
    node: Node,
    attacker: Pod,
    victim: Pod,
    serial: String,
    ca: Authority,
}

// === impl Scene ===

impl Scene {
    async fn set() -> Self {
        let mut node = Node::started(&[]).await;
        let (attacker, mut victim) = (Pod::new(1), Pod::new(2));
        victim.namespace = "bank".to_owned();
        for pod in [&attacker, &victim] {
            node.publish(pod).await.unwrap();
        }
        let serial = checked(&node, &attacker).svid.serial_hex().to_owned();
        node.kill().await;
        Self { node, attacker, victim, serial, ca: new_ca() }
    }

    fn record(&self) -> std::path::PathBuf {
        self.node.target(&self.attacker).join(".svid/record.json")
    }

    /// Puts the attacker's CA among the roots that the volume shows.
    fn add_root(&self) {
        let data = self.node.target(&self.attacker).join("..data");
        let bundle = checked(&self.node, &self.attacker).bundle.merged(&self.ca.bundle());
        let bundle = bundle.with_sequence(Some(u64::from(u32::MAX)));
        fs::write(data.join("bundle.json"), bundle.to_jwks()).unwrap();
        fs::write(data.join("ca.crt"), bundle.to_pem()).unwrap();
    }

    fn put(&self, svid: &X509Svid, key: &PrivateKey) {
        let data = self.node.target(&self.attacker).join("..data");
        fs::write(data.join("tls.crt"), svid.chain_pem()).unwrap();
        fs::write(data.join("tls.key"), key.to_pem().as_bytes()).unwrap();
    }

    /// Nobody else trusts the attacker's CA, now or when something new is made.
    async fn assert_nobody_trusts_it(&self) {
        let root = &self.ca.roots()[0];
        assert!(!checked(&self.node, &self.victim).bundle.contains(root));
        let later = Pod::new(3);
        self.node.publish(&later).await.unwrap();
        assert!(!checked(&self.node, &later).bundle.contains(root));
    }

    /// Kubelet's next republish makes the volume whole, and issues nothing that is still fresh.
    async fn assert_mended(&self) {
        self.node.publish(&self.attacker).await.unwrap();
        let set = checked(&self.node, &self.attacker);
        assert_eq!(set.svid.serial_hex(), self.serial);
        assert!(!set.bundle.contains(&self.ca.roots()[0]));
        assert_eq!(self.node.record(&self.attacker).unwrap()["state"], "live");
    }
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Invariant 5: a foreign identity would be renewed for the attacker from now on.
#[test]
fn an_edited_record_is_not_believed() {
    on_a_node(async || {
        let mut scene = Scene::set().await;
        replace(&scene.record(), "\"shop\"", "\"bank\"");
        replace(&scene.record(), "/ns/shop/", "/ns/bank/");
        scene.node.start().await;
        assert!(scene.node.log().contains("\\\"mac\\\" is wrong"), "{}", scene.node.log());
        assert_eq!(checked(&scene.node, &scene.attacker).svid.serial_hex(), scene.serial);
        scene.assert_mended().await;
    });
}

#[test]
fn a_record_of_another_volume_is_not_believed() {
    on_a_node(async || {
        let mut scene = Scene::set().await;
        let foreign = scene.node.target(&scene.victim).join(".svid/record.json");
        fs::copy(foreign, scene.record()).unwrap();
        scene.node.start().await;
        assert!(scene.node.log().contains("belongs to another path"));
        scene.assert_mended().await;
    });
}

/// Invariant 6 the other way round: what nobody published is in nobody's bundle.
#[test]
fn an_edited_bundle_is_nobodys_trust() {
    for record in [true, false] {
        on_a_node(async || {
            let mut scene = Scene::set().await;
            scene.add_root();
            if !record {
                fs::remove_file(scene.record()).unwrap();
            }
            scene.node.start().await;
            scene.assert_nobody_trusts_it().await;
            scene.assert_mended().await;
        });
    }
}

/// An SVID that its pod made is as good as none; one for ever must not keep a root for ever.
#[test]
fn an_svid_that_the_driver_did_not_put_there_is_replaced() {
    on_a_node(async || {
        let mut scene = Scene::set().await;
        let id = scene.victim.id().parse().unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let csr = Csr::create(&key, &id).unwrap();
        let day = Duration::from_secs(80_000);
        scene.put(&scene.ca.issue(csr.public_key(), &id, &[], day, now()).unwrap(), &key);
        scene.node.start().await;
        eventually("the volume has an SVID of its own again", async || {
            Set::read(&scene.node.target(&scene.attacker)).ok()?.check(&scene.attacker.id()).ok()
        })
        .await;
        scene.assert_nobody_trusts_it().await;
    });
}

/// The records of before count as unreadable: nothing is lost, and nothing is issued anew.
#[test]
fn a_lost_key_costs_no_svid() {
    on_a_node(async || {
        let mut scene = Scene::set().await;
        let key = scene.node.csi_socket().with_file_name("record.key");
        assert_eq!(fs::read(&key).unwrap().len(), 32);
        fs::write(&key, "short").unwrap();
        scene.node.start().await;
        for pod in [&scene.attacker, &scene.victim] {
            checked(&scene.node, pod);
        }
        scene.assert_mended().await;
        assert_eq!(fs::read(&key).unwrap().len(), 32);
    });
}

/// As an older driver wrote it.
#[test]
fn a_record_without_a_code_waits_for_kubelet() {
    on_a_node(async || {
        let mut scene = Scene::set().await;
        let mut record = scene.node.record(&scene.attacker).unwrap();
        record.as_object_mut().unwrap().remove("mac").unwrap();
        fs::write(scene.record(), serde_json::to_vec_pretty(&record).unwrap()).unwrap();
        scene.node.start().await;
        assert!(scene.node.log().contains("no \\\"mac\\\""), "{}", scene.node.log());
        scene.assert_mended().await;
    });
}

/// A pod's names never change: if they seem to, what the driver believed was wrong.
#[test]
fn kubelets_word_for_whose_a_volume_is_counts_more_than_the_record() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let mut pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod).svid.serial_hex().to_owned();
        pod.service_account = "till".to_owned();
        node.publish(&pod).await.unwrap();
        let set = checked(&node, &pod);
        assert_ne!(set.svid.serial_hex(), before);
        assert_eq!(node.record(&pod).unwrap()["spiffeId"], pod.id());
        node.publish(&pod).await.unwrap();
        assert_eq!(checked(&node, &pod).svid.serial_hex(), set.svid.serial_hex());
    });
}
