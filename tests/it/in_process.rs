//! The node in this process, under a clock and a signer that the test holds: races and times
//! that no outside caller can bring about.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::park_timeout,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use svid_csi::{
    clock::{Clock, SystemClock},
    id::TrustDomain,
    node::{
        Node, NodeConfig, NodeError, NodeGround, PublishRequest, RecordKey, Recovered,
        metrics::Metrics,
    },
    pki::{Authority, KeyAlgorithm, TrustBundle, X509Svid},
    signer::{
        SignError, SignRequest, Signer, SignerStatus,
        local::{LocalConfig, LocalJwtConfig, LocalSigner},
    },
    sys::{KubeletDir, LinuxMounter},
    trust::{BundleStore, TrustBundles},
    volume::{Limits, PodTokenError},
};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    plugin::{DRIVER, Pod, TRUST_DOMAIN, eventually, on_a_node, unmount_below},
    volume::Set,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The machine's clock, shifted; tells someone when it is next asked.
#[derive(Default)]
pub struct TestClock {
    ahead: Mutex<Duration>,
    once: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// Signs with one CA and counts.
struct TestSigner {
    authority: Authority,
    clock: Arc<TestClock>,
    signed: AtomicUsize,
    /// Runs when the node looks at its clock after a signature.
    after: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A machine: what survives a process.
pub struct Machine {
    root: TempDir,
    pub clock: Arc<TestClock>,
}

/// A process on it.
pub struct Plugin {
    pub node: Arc<Node>,
    _tasks: JoinSet<()>,
}

// === impl TestClock ===

impl TestClock {
    pub fn set_ahead(&self, by: Duration) {
        *self.ahead.lock().unwrap() = by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        let once = self.once.lock().unwrap().take();
        if let Some(once) = once {
            once();
        }
        SystemClock.now() + *self.ahead.lock().unwrap()
    }
}

// === impl TestSigner ===

impl TestSigner {
    fn new(authority: Authority, clock: &Arc<TestClock>) -> Arc<Self> {
        Arc::new(Self {
            authority,
            clock: clock.clone(),
            signed: AtomicUsize::new(0),
            after: Mutex::default(),
        })
    }

    fn store(&self) -> Arc<BundleStore> {
        let bundle = self.authority.bundle().with_sequence(Some(1));
        Arc::new(BundleStore::new(TrustBundles::own(bundle)))
    }
}

#[async_trait]
impl Signer for TestSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        self.signed.fetch_add(1, Ordering::SeqCst);
        let now = self.clock.now();
        let svid = self
            .authority
            .issue(request.csr.public_key(), &request.id, &[], request.ttl, now)
            .map_err(|error| SignError::new(error.class(), error.to_string()));
        *self.clock.once.lock().unwrap() = self.after.lock().unwrap().take();
        svid
    }

    fn status(&self) -> SignerStatus {
        SignerStatus { ready: Ok(()), ca_not_after: None }
    }
}

// === impl Machine ===

impl Drop for Machine {
    fn drop(&mut self) {
        unmount_below(self.root.path());
    }
}

impl Machine {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kubelet/pods")).unwrap();
        Self { root, clock: Arc::default() }
    }

    fn kubelet(&self) -> PathBuf {
        self.root.path().join("kubelet")
    }

    pub fn target(&self, pod: &Pod) -> PathBuf {
        let (uid, volume) = (&pod.uid, &pod.volume);
        let relative = format!("pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount");
        self.kubelet().join(relative)
    }

    fn look_around(&self, trust_domain: &str) -> (NodeGround, Recovered) {
        self.look_around_with(trust_domain, Arc::default())
    }

    fn look_around_with(
        &self,
        trust_domain: &str,
        metrics: Arc<Metrics>,
    ) -> (NodeGround, Recovered) {
        let config = NodeConfig {
            driver_name: DRIVER.to_owned(),
            kubelet: KubeletDir::open(&self.kubelet()).unwrap(),
            trust_domain: trust_domain.parse().unwrap(),
            limits: Limits::default(),
            mounter: Box::new(LinuxMounter),
            record_key: RecordKey::open(self.root.path()).unwrap(),
            events: Default::default(),
            workload: Default::default(),
        };
        let ground = NodeGround::new(config, metrics).unwrap();
        let recovered = ground.look_around(self.clock.now()).unwrap();
        (ground, recovered)
    }

    pub fn start(&self, signer: Arc<dyn Signer>, store: Arc<BundleStore>) -> Plugin {
        self.start_with(signer, store, Arc::default())
    }

    pub fn start_with(
        &self,
        signer: Arc<dyn Signer>,
        store: Arc<BundleStore>,
        metrics: Arc<Metrics>,
    ) -> Plugin {
        let (ground, recovered) = self.look_around_with(TRUST_DOMAIN, metrics);
        let (node, inbox) = ground.with_signer(signer, store, self.clock.clone());
        node.take_over(recovered);
        let mut tasks = JoinSet::new();
        tasks.spawn(node.clone().start(inbox));
        Plugin { node, _tasks: tasks }
    }

    pub async fn publish(&self, plugin: &Plugin, pod: &Pod) {
        self.try_publish(plugin, pod).await.unwrap();
    }

    pub async fn try_publish(&self, plugin: &Plugin, pod: &Pod) -> Result<(), NodeError> {
        let target = self.target(pod);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let request = PublishRequest {
            volume: pod.volume_id().parse().unwrap(),
            target: target.display().to_string(),
            context: pod.context().into(),
            mount_group: None,
            pod_token: Err(PodTokenError::NotYet),
        };
        plugin.node.publish(request).await
    }

    pub fn set(&self, pod: &Pod) -> Set {
        Set::read(&self.target(pod)).unwrap()
    }

    /// Starts the plugin with the CA that is on disk.
    fn start_local(&self) -> (Plugin, Arc<LocalSigner>) {
        let (_, recovered) = self.look_around(TRUST_DOMAIN);
        let config = LocalConfig {
            directory: self.root.path().join("ca"),
            create: false,
            trust_domain: TRUST_DOMAIN.parse().unwrap(),
            propagation: HOUR,
            jwt: LocalJwtConfig::default(),
        };
        let signer = LocalSigner::open(config, recovered.trust, self.clock.clone());
        let signer = Arc::new(signer);
        (self.start(signer.clone(), signer.bundles()), signer)
    }

    fn put_ca(&self, authority: &Authority) {
        let directory = self.root.path().join("ca");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("tls.crt"), authority.certificate_pem()).unwrap();
        let key = directory.join("tls.key");
        fs::write(&key, authority.key_pem().as_bytes()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

// === impl Plugin ===

impl Plugin {
    /// What NodeGetVolumeStats says is wrong.
    pub fn abnormal(&self, machine: &Machine, pod: &Pod) -> Option<String> {
        let (id, path) = (pod.volume_id().parse().unwrap(), machine.target(pod));
        let stats = self.node.stats(&id, &path.display().to_string()).unwrap();
        stats.abnormal
    }
}

pub fn authority(made: SystemTime) -> Authority {
    let domain: TrustDomain = TRUST_DOMAIN.parse().unwrap();
    Authority::create(&domain, KeyAlgorithm::EcdsaP256, HOUR * 2_400, made).unwrap()
}

fn mount(source: &str, target: &Path) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", source]).arg(target);
    assert!(mount.status().unwrap().success());
}

/// Invariant 9: a restart that finds every volume overdue does not renew them all at once.
#[test]
fn overdue_renewals_are_spread_after_a_restart() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let store = signer.store();
        let plugin = machine.start(signer.clone(), store.clone());
        for n in 0..40 {
            machine.publish(&plugin, &Pod::new(n)).await;
        }
        drop(plugin);
        signer.signed.store(0, Ordering::SeqCst);
        machine.clock.set_ahead(Duration::from_secs(3_000));
        let _plugin = machine.start(signer.clone(), store);
        // They have a minute; in two seconds it would be all of them if they were not spread.
        sleep(Duration::from_secs(2)).await;
        let signed = signer.signed.load(Ordering::SeqCst);
        assert!(signed < 20, "{signed} of 40 in the first 2 s");
    });
}

/// The bundle after a second root was published.
fn grown(first: &Authority, second: &Authority) -> TrustBundle {
    let both = first.bundle().merged(&second.bundle());
    both.with_sequence(Some(2))
}

/// Invariant 6: what is published while a volume is on its way reaches that volume, too.
#[test]
fn a_bundle_that_changes_during_a_publish_reaches_the_volume() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let store = signer.store();
        let plugin = machine.start(signer.clone(), store.clone());
        let next = authority(SystemClock.now());
        let bundle = grown(&signer.authority, &next);
        // The node has read the bundle, and has not written the set yet.
        *signer.after.lock().unwrap() = Some(Box::new(move || {
            store.publish_own(bundle);
            park_timeout(Duration::from_millis(200));
        }));
        let pod = Pod::new(1);
        machine.publish(&plugin, &pod).await;
        eventually("the volume trusts the new root", async || {
            let bundle = machine.set(&pod).bundle;
            bundle.contains(next.certificate()).then_some(())
        })
        .await;
        assert_eq!(signer.signed.load(Ordering::SeqCst), 1);
    });
}

/// Invariant 1: a key goes to no mount but ours.
#[test]
fn nothing_is_written_to_what_somebody_else_mounted_over_a_volume() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let store = signer.store();
        let plugin = machine.start(signer.clone(), store.clone());
        let pod = Pod::new(1);
        machine.publish(&plugin, &pod).await;
        let target = machine.target(&pod);
        mount("somebody-else", &target);
        let next = authority(SystemClock.now());
        let bundle = grown(&signer.authority, &next);
        store.publish_own(bundle.clone());
        eventually("the rewrite fails", async || {
            let abnormal = plugin.abnormal(&machine, &pod)?;
            abnormal.contains("mount").then_some(())
        })
        .await;
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        let mut unmount = Command::new("umount");
        assert!(unmount.arg(&target).status().unwrap().success());
        store.publish_own(bundle.with_sequence(Some(3)));
        eventually("the next try succeeds", async || {
            let bundle = machine.set(&pod).bundle;
            bundle.contains(next.certificate()).then_some(())
        })
        .await;
    });
}

/// A failure that is over is shown no longer, though nothing is due.
#[test]
fn a_record_that_could_not_be_written_is_written_later() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let store = signer.store();
        let plugin = machine.start(signer.clone(), store.clone());
        let pod = Pod::new(1);
        machine.publish(&plugin, &pod).await;
        let record = machine.target(&pod).join(".svid/record.json");
        fs::remove_file(&record).unwrap();
        fs::create_dir(&record).unwrap();
        store.publish_own(grown(&signer.authority, &authority(SystemClock.now())));
        eventually("the record fails", async || plugin.abnormal(&machine, &pod)).await;
        fs::remove_dir(&record).unwrap();
        eventually("the record is there", async || {
            fs::read(&record).ok().filter(|text| !text.is_empty())
        })
        .await;
        assert_eq!(plugin.abnormal(&machine, &pod), None);
        assert_eq!(signer.signed.load(Ordering::SeqCst), 1);
    });
}

/// Invariant 6: a pod may still use an SVID that was replaced, until it ends.
#[test]
fn a_root_stays_after_a_restart_while_what_it_signed_may_be_in_use() {
    on_a_node(async || {
        let machine = Machine::new();
        let (old, new) = (authority(SystemClock.now()), authority(SystemClock.now()));
        let pod = Pod::new(1);
        machine.put_ca(&old);
        let (plugin, _) = machine.start_local();
        machine.publish(&plugin, &pod).await;
        drop(plugin);

        machine.put_ca(&new);
        machine.clock.set_ahead(HOUR - Duration::from_secs(40));
        let (plugin, _) = machine.start_local();
        eventually("the new CA signs", async || {
            let issuer = machine.set(&pod).svid.leaf().issuer();
            (issuer == new.certificate().subject()).then_some(())
        })
        .await;
        drop(plugin);

        let (_plugin, signer) = machine.start_local();
        assert!(signer.bundles().current().unwrap().own.contains(old.certificate()));
        assert!(machine.set(&pod).bundle.contains(old.certificate()));
    });
}

/// SPIFFE Federation §4.2: bundles of different trust domains are never merged.
#[test]
fn volumes_of_another_trust_domain_add_nothing_to_the_bundle() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let plugin = machine.start(signer.clone(), signer.store());
        machine.publish(&plugin, &Pod::new(1)).await;
        drop(plugin);
        let (_, recovered) = machine.look_around("other.example");
        assert_eq!(recovered.len(), 1);
        assert!(recovered.trust.roots.is_empty() && recovered.trust.bundle.is_none());
        let (_, recovered) = machine.look_around(TRUST_DOMAIN);
        assert_eq!(recovered.trust.roots.len(), 1);
    });
}

/// A clock that ran ahead is set right: what was signed then is not valid for a day.
#[test]
fn an_svid_from_the_future_is_replaced() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let store = signer.store();
        machine.clock.set_ahead(HOUR * 24);
        let plugin = machine.start(signer.clone(), store.clone());
        let (running, restarted) = (Pod::new(1), Pod::new(2));
        machine.publish(&plugin, &running).await;
        sleep(Duration::from_millis(100)).await;
        machine.clock.set_ahead(Duration::ZERO);
        eventually("the running node replaces it", async || {
            machine.set(&running).check(&running.id()).ok()
        })
        .await;

        machine.clock.set_ahead(HOUR * 24);
        machine.publish(&plugin, &restarted).await;
        drop(plugin);
        machine.clock.set_ahead(Duration::ZERO);
        let _plugin = machine.start(signer.clone(), store);
        eventually("a restart replaces it", async || {
            machine.set(&restarted).check(&restarted.id()).ok()
        })
        .await;
    });
}

/// Invariant 3: of stacked mounts, each is judged by what is in it.
#[test]
fn an_unfinished_mount_over_a_live_volume_is_all_that_is_removed() {
    on_a_node(async || {
        let machine = Machine::new();
        let signer = TestSigner::new(authority(SystemClock.now()), &machine.clock);
        let store = signer.store();
        let plugin = machine.start(signer.clone(), store.clone());
        let pod = Pod::new(1);
        machine.publish(&plugin, &pod).await;
        let serial = machine.set(&pod).svid.serial_hex().to_owned();
        drop(plugin);
        mount(DRIVER, &machine.target(&pod));
        let plugin = machine.start(signer, store);
        assert_eq!(machine.set(&pod).svid.serial_hex(), serial);
        assert_eq!(plugin.abnormal(&machine, &pod), None);
    });
}
