//! The life of the controller's process: start, serve, end.

use std::{future::Future, io::stdout, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Access, Settings, certificates::Certificates, issuer::Issuing, pod_certificates::Signing,
};
use crate::{
    cli::signals::Signals,
    clock::{Clock, SystemClock},
    controller::{
        approver::ApproverSettings,
        audit::Audit,
        ca::Keyring,
        issuance::Issuance,
        metrics::Metrics,
        pod_certificates::PodCertificateSigner,
        policy_status,
        reconcile::{Ground, Reconciler},
        requests,
        tokens::Tokens,
        world::World,
    },
    http::{self, Checks},
    k8s::{Candidate, Cluster, Inventory, RequestDecisions, RequestFacts},
};

/// How long everything may take to end, once nothing new is begun.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that runs, in the order in which it ends.
struct Running {
    requests: Critical,
    stop_requests: CancellationToken,
    ground: Critical,
    stop_ground: CancellationToken,
    /// Watches and HTTP have nothing to finish.
    rest: Critical,
}

/// Tasks that run until they are told to stop; each says its name when it ends.
type Critical = JoinSet<&'static str>;

/// Runs until a signal ends it.
pub(super) async fn serve(mut settings: Settings) -> Result<()> {
    let began = Instant::now();
    let mut signals = Signals::new()?;
    let cluster = match &settings.access {
        Access::Pod => Cluster::in_cluster(),
        Access::Kubeconfig(context) => Cluster::from_kubeconfig(context.as_deref()).await,
    }
    .context("outside a cluster, give --kubeconfig")?;
    let listener = TcpListener::bind(settings.http_listen)
        .await
        .with_context(|| format!("--http-listen {}", settings.http_listen))?;
    let address = listener.local_addr()?;
    let issuing = match settings.issuer.take() {
        Some(choice) => Some(Issuing::open(choice).await?),
        None => None,
    };
    let issuer = issuing.as_ref().map(Issuing::address).transpose()?;
    let mut running = start(cluster, settings, listener, issuing)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        http = %address,
        issuer = issuer.map(tracing::field::display),
        took_ms = began.elapsed().as_millis() as u64,
        "started"
    );
    let ended = tokio::select! {
        () = signals.next() => None,
        Some(ended) = running.requests.join_next() => Some(ended),
        Some(ended) = running.ground.join_next() => Some(ended),
        Some(ended) = running.rest.join_next() => Some(ended),
    };
    if let Some(ended) = ended {
        bail!("the {} ended by itself", ended.context("a critical task panicked")?);
    }
    info!("stopping; what is under way is finished");
    tokio::select! {
        () = running.stop() => {}
        () = signals.next() => warn!("told twice to stop"),
    }
    Ok(())
}

// === impl Running ===

impl Running {
    /// Requests end first, then what they rest on: the CA and the Lease.
    async fn stop(&mut self) {
        self.stop_requests.cancel();
        while self.requests.join_next().await.is_some() {}
        self.stop_ground.cancel();
        let ended = async { while self.ground.join_next().await.is_some() {} };
        if timeout(DRAIN, ended).await.is_err() {
            warn!("not everything ended in time");
        }
    }
}

fn start(
    cluster: Cluster,
    settings: Settings,
    listener: TcpListener,
    issuing: Option<Issuing>,
) -> Result<Running> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::with(|registry| {
        if let Some(issuing) = &issuing {
            issuing.register(registry);
        }
    }));
    let tokens = issuing.as_ref().map(|issuing| issuing.tokens(&cluster, &clock));
    let namespace = settings.namespace.unwrap_or_else(|| cluster.namespace().to_owned());
    let audit = Audit::new(Box::new(stdout()), settings.replica.clone(), clock.clone());
    let (candidate, leads) =
        Candidate::new(&cluster, &namespace, settings.lease, &settings.replica, clock.clone());
    let keyring = Keyring::new(settings.ca.in_namespace(&namespace), clock.clone());
    let ApproverSettings { driver_name, driver_service_account, pod_certificate_signer, .. } =
        settings.approver.clone();
    let world = Arc::new(World::new(
        Inventory::new(cluster.clone()),
        settings.approver,
        clock.clone(),
        metrics.clone(),
    ));
    let issuance = Arc::new(Issuance {
        keyring: keyring.clone(),
        audit: Arc::new(audit),
        metrics: metrics.clone(),
        clock: clock.clone(),
    });
    let on = Ground { world: world.clone(), issuance: issuance.clone(), leads: leads.clone() };
    let requests = Arc::new(requests::reconciler(on.clone(), RequestDecisions::new(&cluster)));
    let pods = settings.pod_certificates.map(|Signing { signer, fence }| {
        Arc::new(PodCertificateSigner::new(on.clone(), &cluster, &signer, &fence))
    });
    let certificates = settings
        .cert_manager
        .map(|settings| Arc::new(Certificates::new(&cluster, &namespace, settings, on.clone())));
    let checks = checks(on, &requests, &tokens, &pods, &certificates);

    let (stop_requests, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut working = Critical::new();
    named(&mut working, "request loop", {
        let stop = stop_requests.clone();
        async move { requests.run(stop).await }
    });
    let mut rest = Critical::new();
    if let Some(pods) = pods {
        let stop = stop_requests.clone();
        named(&mut working, "pod certificates", async move { pods.run(stop).await });
    }
    if let Some(certificates) = certificates {
        let (stop, other) = (stop_requests.clone(), certificates.clone());
        let run = async move { certificates.run(stop).await };
        named(&mut working, "loop of CertificateRequests", run);
        named(&mut rest, "watch over cert-manager", async move { other.keep().await });
    }
    let mut ground = Critical::new();
    if let (Some(issuing), Some(tokens)) = (issuing, tokens) {
        let (world, clock) = (world.clone(), clock.clone());
        let serving =
            issuing.serve(world, issuance, tokens.clone(), clock, stop_requests.clone())?;
        named(&mut working, "direct issuing", serving);
        let stop = stop.clone();
        named(&mut ground, "keys of tokens", async move { tokens.follow(stop).await });
    }
    named(&mut ground, "Lease", candidate.run(stop.clone()));
    named(&mut ground, "CA", keyring.run(cluster, leads.clone(), stop.clone()));
    named(&mut ground, "reading of policies", {
        let (world, stop) = (world.clone(), stop.clone());
        async move { world.follow_policies(stop).await }
    });
    let statuses = policy_status::keep(world.clone(), metrics, clock, leads, stop.clone());
    named(&mut ground, "writing of policies' statuses", statuses);
    for (what, follow) in
        world.inventory().follow(driver_name, driver_service_account, pod_certificate_signer)
    {
        named(&mut rest, what, follow);
    }
    named(&mut rest, "HTTP server", http::serve(listener, checks, CancellationToken::new()));
    Ok(Running { requests: working, stop_requests, ground, stop_ground: stop, rest })
}

fn named(set: &mut Critical, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    set.spawn(async move {
        task.await;
        name
    });
}

fn checks(
    on: Ground,
    requests: &Arc<Reconciler<RequestFacts>>,
    tokens: &Option<Arc<Tokens>>,
    pods: &Option<Arc<PodCertificateSigner>>,
    certificates: &Option<Arc<Certificates>>,
) -> Arc<Checks> {
    let live = {
        let (requests, pods) = (requests.clone(), pods.clone());
        let certificates = certificates.clone();
        Box::new(move || {
            requests.alive()?;
            certificates.as_ref().map_or(Ok(()), |it| it.alive())?;
            pods.as_ref().map_or(Ok(()), |pods| pods.alive())
        })
    };
    let ready = {
        let (on, requests, tokens) = (on.clone(), requests.clone(), tokens.clone());
        let certificates = certificates.clone();
        Box::new(move || {
            on.world.ready()?;
            requests.ready()?;
            tokens.as_ref().map_or(Ok(()), |tokens| tokens.ready())?;
            certificates.as_ref().map_or(Ok(()), |it| it.ready())?;
            on.issuance
                .keyring
                .status(on.issuance.clock.now())
                .ready
                .map_err(|reason| reason.to_string())
        })
    };
    let shown = {
        let (requests, tokens, pods) = (requests.clone(), tokens.clone(), pods.clone());
        let certificates = certificates.clone();
        Box::new(move || {
            let Issuance { keyring, metrics, clock, .. } = &*on.issuance;
            let now = clock.now();
            on.world.refresh_metrics();
            if let Some(tokens) = &tokens {
                tokens.refresh_metrics();
            }
            requests.refresh_metrics(now);
            if let Some(pods) = &pods {
                pods.refresh_metrics(now);
            }
            if let Some(certificates) = &certificates {
                certificates.refresh_metrics(now);
            }
            metrics.leader.set((*on.leads.borrow()).into());
            metrics.saw_keyring(&keyring.status(now));
            metrics.encode().unwrap_or_default()
        })
    };
    Arc::new(Checks { live, ready, metrics: shown })
}
