//! Readers in processes of their own hammer volumes that rotate, and never see a file that is
//! missing or does not match the others (invariant 2).

use std::{
    collections::HashSet,
    env, fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::{Stdio, exit},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use svid_csi::{
    clock::Clock,
    node::{
        Node as InProcess, NodeConfig, NodeGround, PublishRequest, RecordKey, metrics::Metrics,
    },
    pki::{TrustBundle, certificates_from_pem},
    signer::local::{LocalConfig, LocalJwtConfig, LocalSigner},
    sys::{KubeletDir, LinuxMounter},
    volume::{Limits, PodTokenError, VolumeContext, VolumeId},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    task::JoinSet,
    time::sleep,
};

use crate::{
    invariants::matches,
    local_ca::{new_ca, now},
    plugin::{DRIVER, Node, Pod, TRUST_DOMAIN, eventually, on_a_node, unmount_below},
    volume::{Set, checked},
};

/// What to read, in the reader's environment: an ID, then volumes, one a line.
const ORDER: &str = "SVID_CSI_TEST_READ";
const ROTATIONS: usize = 1_000;
/// A volume of 10 s is due by then, and has not expired.
const STEP: Duration = Duration::from_secs(7);

/// A reader at work.
struct Reader {
    process: Child,
    lines: Lines<BufReader<ChildStderr>>,
    marks: u64,
}

/// What a reader saw.
#[derive(Debug)]
struct Seen {
    passes: u64,
    /// The current set was replaced in the middle of so many.
    swapped: u64,
}

// === impl Reader ===

impl Reader {
    fn start(id: &str, volumes: &[PathBuf]) -> Self {
        let mut order = id.to_owned();
        for volume in volumes {
            order.push('\n');
            order.push_str(volume.to_str().unwrap());
        }
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "reader::reader", "--ignored", "--nocapture"])
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, lines, marks: 0 }
    }

    /// Waits until whatever it reads now has been read to its end.
    async fn catch_up(&mut self) {
        self.marks += 1;
        let mark = format!("{}\n", self.marks);
        let stdin = self.process.stdin.as_mut().unwrap();
        stdin.write_all(mark.as_bytes()).await.unwrap();
        let line = self.line().await;
        assert_eq!(line, mark.trim(), "a reader saw what it should not");
    }

    async fn finish(mut self) -> Seen {
        self.process.stdin = None;
        let line = self.line().await;
        let numbers = line.split_once(' ');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some((passes, swapped)) = numbers else {
            panic!("a reader saw what it should not: {line}");
        };
        Seen { passes, swapped }
    }

    async fn line(&mut self) -> String {
        let line = self.lines.next_line().await.unwrap();
        line.expect("the reader goes on")
    }
}

/// Not a test: the reader's process, see [`Reader`].
#[test]
#[ignore = "run by other tests"]
fn reader() {
    let Ok(order) = env::var(ORDER) else { return };
    let (id, volumes) = order.split_once('\n').unwrap();
    let volumes: Vec<&Path> = volumes.lines().map(Path::new).collect();
    let mark = Arc::new(AtomicU64::new(0));
    let marked = mark.clone();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            marked.store(line.unwrap().parse().unwrap(), Ordering::SeqCst);
        }
        marked.store(u64::MAX, Ordering::SeqCst);
    });
    let (mut passes, mut swapped, mut last) = (0_u64, 0_u64, 0);
    loop {
        for volume in &volumes {
            match pass(volume, id) {
                Ok(swap) => swapped += u64::from(swap),
                Err(fault) => end(&format!("{}: {fault}", volume.display()), 1),
            }
            passes += 1;
        }
        let mark = mark.load(Ordering::SeqCst);
        if mark == u64::MAX {
            end(&format!("{passes} {swapped}"), 0);
        }
        if mark != last {
            last = mark;
            writeln!(io::stderr(), "{mark}").unwrap();
        }
    }
}

fn end(line: &str, code: i32) -> ! {
    let _ = writeln!(io::stderr(), "{line}");
    exit(code)
}

/// Reads a volume in both ways that pods do; whether the set was replaced meanwhile.
fn pass(volume: &Path, id: &str) -> Result<bool, String> {
    let resolve = || fs::read_link(volume.join("..data")).map_err(|e| format!("..data: {e}"));
    let first = resolve()?;
    let dir = volume.join(&first);
    let set = Set::read_dir(&dir)?;
    matches(&set, id)?;
    let json = fs::read(dir.join("bundle.json")).map_err(|e| format!("bundle.json: {e}"))?;
    let bundle = TrustBundle::from_jwks(TRUST_DOMAIN.parse().unwrap(), &json);
    let bundle = bundle.map_err(|error| format!("bundle.json: {error}"))?;
    if bundle.x509_authorities() != set.bundle.x509_authorities() {
        return Err("bundle.json and ca.crt differ".to_owned());
    }
    // By name, files need not belong together, but each is always there and whole.
    for name in ["tls.crt", "tls.key", "ca.crt", "bundle.json"] {
        let text = fs::read_to_string(volume.join(name)).map_err(|e| format!("{name}: {e}"))?;
        let whole = match name {
            "tls.key" => svid_csi::pki::PrivateKey::from_pem(&text).is_ok(),
            "bundle.json" => serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            _ => certificates_from_pem(&text).is_ok_and(|found| !found.is_empty()),
        };
        if !whole {
            return Err(format!("{name} is not whole"));
        }
    }
    Ok(resolve()? != first)
}

// --- the node in this process ----------------------------------------------------------------

/// A clock that stands still until it is told. It stays behind the machine's, by which the
/// kernel dates files.
struct SetClock(Mutex<SystemTime>);

// === impl SetClock ===

impl SetClock {
    fn advance(&self, by: Duration) {
        let mut clock = self.0.lock().unwrap();
        *clock += by;
        assert!(*clock < now(), "the clock ran ahead of the machine's");
    }
}

impl Clock for SetClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// A volume keeps the current set and two before it, so two swaps may come while a reader reads
/// one set. It gets no more: each pair of swaps waits for the readers, and nothing else does.
#[test]
fn a_thousand_rotations_show_no_reader_a_mismatched_or_missing_file() {
    on_a_node(async || {
        let root = tempfile::tempdir().unwrap();
        let target = root
            .path()
            .join("pods/00000000-0000-4000-8000-000000000001/volumes/kubernetes.io~csi/svid/mount");
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // More than the rotations take.
        let past = 2 * STEP * u32::try_from(ROTATIONS).unwrap();
        let clock = Arc::new(SetClock(Mutex::new(now() - past)));
        let ground = NodeGround::new(
            NodeConfig {
                driver_name: DRIVER.to_owned(),
                kubelet: KubeletDir::open(root.path()).unwrap(),
                trust_domain: TRUST_DOMAIN.parse().unwrap(),
                limits: Limits::default(),
                mounter: Box::new(LinuxMounter),
                record_key: RecordKey::open(root.path()).unwrap(),
                events: Default::default(),
                workload: Default::default(),
            },
            Arc::new(Metrics::default()),
        )
        .unwrap();
        let config = LocalConfig {
            directory: root.path().join("ca"),
            create: true,
            trust_domain: TRUST_DOMAIN.parse().unwrap(),
            propagation: Duration::ZERO,
            jwt: LocalJwtConfig::default(),
        };
        let signer = LocalSigner::open(config, Default::default(), clock.clone());
        let bundles = signer.bundles();
        let (node, inbox) = ground.with_signer(Arc::new(signer), bundles.clone(), clock.clone());
        let mut running = JoinSet::new();
        running.spawn(node.clone().start(inbox));

        let pod = Pod::new(1).with("ttl", "10s");
        let request = PublishRequest {
            volume: pod.volume_id().parse().unwrap(),
            target: target.display().to_string(),
            context: VolumeContext::from(pod.context()),
            mount_group: None,
            pod_token: Err(PodTokenError::NotYet),
        };
        node.publish(request).await.unwrap();

        let volumes = [target.clone()];
        let mut readers = [Reader::start(&pod.id(), &volumes), Reader::start(&pod.id(), &volumes)];
        let old = bundles.current().unwrap().own.clone();
        let mut serials = HashSet::new();
        let mut keys = HashSet::new();
        let mut swaps = 0;
        while serials.len() < ROTATIONS {
            for second in [false, true] {
                let before = fs::read_link(target.join("..data")).unwrap();
                swaps += 1;
                if second && swaps % 20 == 0 {
                    // Another root comes, or goes again; the SVID stays.
                    let sequence = bundles.current().unwrap().own.sequence().map(|last| last + 1);
                    let next =
                        if swaps % 40 == 0 { old.clone() } else { old.merged(&new_ca().bundle()) };
                    bundles.publish_own(next.with_sequence(sequence));
                    replaced(&target, &before, async || {}).await;
                } else {
                    clock.advance(STEP);
                    wake(&node, root.path()).await;
                    replaced(&target, &before, async || {
                        // The last renewal was still ending when the clock moved, and set its
                        // time by that.
                        clock.advance(Duration::from_secs(1));
                        wake(&node, root.path()).await;
                    })
                    .await;
                }
                let set = Set::read(&target).unwrap();
                serials.insert(set.svid.serial_hex().to_owned());
                keys.insert(set.key.spki_der().to_vec());
            }
            for reader in &mut readers {
                reader.catch_up().await;
            }
        }
        assert_eq!(keys.len(), serials.len(), "each renewal makes a key");
        for reader in readers {
            let seen = reader.finish().await;
            println!("{} renewals, {swaps} swaps, {seen:?}", serials.len());
            assert!(seen.passes > 500 && seen.swapped > 20, "{seen:?}");
        }
        node.shut_down(Duration::from_secs(5)).await;
        unmount_below(root.path());
    });
}

/// Waits until another set is current, and does something about it now and then.
async fn replaced(target: &Path, before: &Path, mut nudge: impl AsyncFnMut()) {
    for _ in 0..2_000 {
        for _ in 0..10 {
            if fs::read_link(target.join("..data")).unwrap() != before {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        nudge().await;
    }
    panic!("the set was never replaced");
}

/// The rotator looks at the clock when it is told anything, here that there is no such volume.
async fn wake(node: &Arc<InProcess>, root: &Path) {
    let nothing: VolumeId = "nothing".parse().unwrap();
    let target = root.join("pods/none/volumes/kubernetes.io~csi/svid/mount");
    node.unpublish(nothing, target.display().to_string()).await.unwrap();
}

// --- the real process ------------------------------------------------------------------------

#[test]
fn real_rotations_and_a_crash_show_no_reader_a_mismatched_or_missing_file() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        let pods: Vec<Pod> = (0..6).map(|n| Pod::new(n).with("ttl", "10s")).collect();
        for pod in &pods {
            node.publish(pod).await.unwrap();
        }
        let volumes: Vec<PathBuf> = pods.iter().map(|pod| node.target(pod)).collect();
        let reader = Reader::start(&pods[0].id(), &volumes);
        for crash in [false, true] {
            let serials = |node: &Node| -> Vec<String> {
                let serial = |pod| checked(node, pod).svid.serial_hex().to_owned();
                pods.iter().map(serial).collect()
            };
            if crash {
                node.kill().await;
                node.start().await;
            }
            let before = serials(&node);
            eventually("every volume is renewed", async || {
                let after = serials(&node);
                let mut pairs = before.iter().zip(&after);
                pairs.all(|(old, new)| old != new).then_some(())
            })
            .await;
        }
        let seen = reader.finish().await;
        println!("{seen:?}");
        assert!(seen.passes > 100, "{seen:?}");
    });
}
