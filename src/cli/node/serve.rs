//! The life of the node plugin's process: start, serve, end.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Settings, plugin_dir,
    signing::{Signing, SigningParts},
};
use crate::{
    cli::{UsageError, signals::Signals},
    clock::{Clock, SystemClock},
    csi::{Server, SocketHealth},
    http::{self, Checks},
    k8s::{EventWriter, PodEvents},
    node::{Node, NodeConfig, NodeGround, RecordKey, RotatorInbox, metrics::Metrics},
    sys::{DirLock, KubeletDir, LinuxMounter},
    workload,
};

/// How long publishes under way may take at the end.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long open connections may take after that.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait for a process before us that is still ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// A node that has its volumes back and its names bound, and has answered nobody yet.
struct Started {
    _lock: DirLock,
    node: Arc<Node>,
    inbox: RotatorInbox,
    signing: Signing,
    events: Option<EventWriter>,
    server: Server,
    workloads: workload::Server,
    http: TcpListener,
    checks: Arc<Checks>,
}

/// Runs until a signal ends it. One that comes during the start may leave work under way behind,
/// which the end of the process then cuts short: like a crash, that harms nothing (invariant 4).
pub(super) async fn serve(settings: Settings) -> Result<()> {
    let began = Instant::now();
    let mut signals = Signals::new()?;
    // Recovery blocks its thread, so it has one that is not this.
    let mut starting = JoinSet::new();
    starting.spawn(start(settings));
    let started = tokio::select! {
        biased;
        Some(started) = starting.join_next() => started.context("the start panicked")??,
        () = signals.next() => {
            info!("told to stop before the start was done; every mount stays");
            return Ok(());
        }
    };
    let Started { _lock, node, inbox, signing, events, server, workloads, http, checks } = started;
    let http_address = http.local_addr()?;

    let stop = CancellationToken::new();
    let mut critical: JoinSet<Result<&str>> = JoinSet::new();
    let serving = server.run(stop.clone());
    critical.spawn(async { Ok(serving.await.map(|()| "CSI server")?) });
    // Pods are served for as long as publishes are finished.
    let hang_up = CancellationToken::new();
    let serving = workloads.run(hang_up.clone());
    critical.spawn(async { Ok(serving.await.map(|()| "Workload API server")?) });
    let http = http::serve(http, checks, stop.clone());
    critical.spawn(async {
        http.await;
        Ok("HTTP server")
    });
    critical.spawn({
        let node = node.clone();
        async {
            node.start(inbox).await;
            Ok("renewal loop")
        }
    });
    critical.spawn({
        let stop = stop.clone();
        async move {
            signing.run(stop).await;
            Ok("signer")
        }
    });
    if let Some(events) = events {
        let stop = stop.clone();
        critical.spawn(async {
            events.run(stop).await;
            Ok("writer of Events")
        });
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        http = %http_address,
        took_ms = began.elapsed().as_millis() as u64,
        "ready"
    );

    tokio::select! {
        () = signals.next() => {}
        Some(ended) = critical.join_next() => {
            let part = ended.context("a critical task panicked")??;
            bail!("the {part} ended by itself");
        }
    }
    info!("stopping; every mount stays");
    stop.cancel();
    let finish = async {
        node.shut_down(PATIENCE).await;
        node.close_sockets().await;
        hang_up.cancel();
        // What answers kubelet and pods is still on its way out.
        let drain = async { while critical.join_next().await.is_some() {} };
        if timeout(DRAIN, drain).await.is_err() {
            warn!("some connections did not end in time");
        }
    };
    tokio::select! {
        () = finish => {}
        () = signals.next() => warn!("told twice to stop"),
    }
    Ok(())
}

async fn start(settings: Settings) -> Result<Started> {
    let Settings { server, kubelet_dir, limits, workload, trust_domain, signer, http_listen } =
        settings;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut metrics = Metrics::default();
    let served = workload::Metrics::new(metrics.registry());
    let metrics = Arc::new(metrics);
    let kubelet = KubeletDir::open(&kubelet_dir).map_err(|error| {
        let shown = kubelet_dir.display();
        UsageError::new(
            "--kubelet-dir",
            format!("{shown}: {error}; name the root directory of this node's kubelet"),
        )
    })?;
    make_dir(server.csi_socket.parent().unwrap_or(Path::new("/")))?;
    make_dir(&server.registration_dir)?;
    // Whatever the socket is: the volumes are those of kubelet's directory and this driver name.
    let plugin_dir = plugin_dir(&kubelet_dir, &server.driver_name);
    make_dir(&plugin_dir)?;
    let lock = lock(&plugin_dir).await?;
    let parts = SigningParts::new(signer).await?;
    let (events, event_writer) = match &parts.cluster {
        Some(cluster) => {
            let (driver, node) = (server.driver_name.clone(), server.node_name.clone());
            let (events, writer) = PodEvents::new(cluster.clone(), driver, node, clock.clone());
            (events, Some(writer))
        }
        None => (PodEvents::default(), None),
    };
    // The order is what keeps the volumes: look at what is there, know whom they trust, give
    // every set the current bundle, and only then answer kubelet.
    let ground = NodeGround::new(
        NodeConfig {
            driver_name: server.driver_name.clone(),
            kubelet,
            trust_domain,
            limits,
            mounter: Box::new(LinuxMounter),
            record_key: RecordKey::open(&plugin_dir)?,
            events,
            workload,
        },
        metrics.clone(),
    )?;
    let mut recovered = ground.look_around(clock.now())?;
    let trust = std::mem::take(&mut recovered.trust);
    let signing = Signing::open(parts, trust, &server.node_name, &metrics, clock.clone())?;
    let (node, inbox) = ground.with_signer(signing.signer.clone(), signing.bundles.clone(), clock);
    node.take_over(recovered);

    let http = TcpListener::bind(http_listen)
        .await
        .with_context(|| format!("--http-listen {http_listen}"))?;
    let health = SocketHealth::default();
    let server = Server::bind(server, node.clone(), health.clone())?;
    let arrivals = node.arrivals().context("somebody else serves the volumes' sockets")?;
    let workloads = workload::Server::new(arrivals, served)?;
    let checks = Arc::new(Checks {
        live: {
            let node = node.clone();
            Box::new(move || node.alive().and_then(|()| health.check()))
        },
        ready: {
            let node = node.clone();
            Box::new(move || node.ready())
        },
        metrics: {
            let (node, reload_failures) = (node.clone(), signing.reload_failures());
            let bundles_refused = signing.bundles_refused();
            Box::new(move || {
                node.refresh_metrics();
                metrics.ca_reload_failures.set(reload_failures() as i64);
                metrics.bundle_refused.set(bundles_refused() as i64);
                metrics.encode().unwrap_or_default()
            })
        },
    });
    Ok(Started {
        _lock: lock,
        node,
        inbox,
        signing,
        events: event_writer,
        server,
        workloads,
        http,
        checks,
    })
}

fn make_dir(path: &Path) -> Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .with_context(|| format!("create {}", path.display()))
}

/// Two processes must never keep the same volumes. The one before us may still be ending.
async fn lock(plugin_dir: &Path) -> Result<DirLock> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut told = false;
    loop {
        match DirLock::try_acquire(plugin_dir) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    bail!("another node plugin serves {}; stop it first", plugin_dir.display());
                }
                if !told {
                    warn!("waiting for another node plugin to end");
                    told = true;
                }
                sleep(Duration::from_millis(200)).await;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("lock {}", plugin_dir.display()));
            }
        }
    }
}
