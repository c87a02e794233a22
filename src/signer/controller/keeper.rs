//! Keeps one connection to a replica, for as long as it can be trusted.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{
    link::{Driver, Link},
    metrics::Handshake,
    replica::Replica,
    replicas::Replicas,
    tls::{Tls, impostor},
    token::DriverToken,
};
use crate::{clock::Clock, jitter::random, pki::X509Svid, trust::BundleStore};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long calls under way may take on a connection that is given up.
const DRAIN: Duration = Duration::from_secs(30);
/// A connection that lived as long was no accident.
const STABLE: Duration = Duration::from_secs(10);
/// The longest pause before the first new try; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the wall clock is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Makes connections and watches over them.
pub(super) struct Keeper {
    pub(super) tls: Tls,
    pub(super) token: Arc<DriverToken>,
    pub(super) bundles: Arc<BundleStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tracker: TaskTracker,
    pub(super) numbers: AtomicU64,
}

/// Why there is no connection.
enum End {
    /// None was made.
    Failed(String),
    /// It ended by itself.
    Lost,
    /// Whoever is at the other end is trusted no longer.
    Distrusted(String),
    /// Its certificate has expired; a new connection shows the next one.
    Outlived,
    /// The replica is to be called no more.
    Left,
}

// === impl Keeper ===

impl Keeper {
    /// Keeps a connection to this replica until it is to be called no more.
    pub(super) async fn keep(&self, replica: &Replica, replicas: &Replicas) {
        let (address, mut failures) = (replica.address, 0_u32);
        let mut bundles = self.bundles.subscribe();
        while !replica.leave.is_cancelled() {
            bundles.mark_unchanged();
            let began = Instant::now();
            let end = self.serve(replica, replicas).await;
            let reason = end.to_string();
            let news = replica.lost(&reason);
            // Whoever let it go has forgotten it.
            if !replica.leave.is_cancelled() {
                replicas.metrics.connected(address, false);
            }
            if began.elapsed() >= STABLE {
                failures = 0;
            }
            // Also the controller ends a connection that is old.
            let expected = match end {
                End::Outlived | End::Left => true,
                End::Lost => began.elapsed() >= STABLE,
                End::Failed(_) | End::Distrusted(_) => false,
            };
            if expected {
                debug!(replica = %address, reason, "a connection ended");
            } else if news {
                warn!(replica = %address, reason, "no connection to this replica of the controller");
            }
            replicas.lost.notify_one();
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = sleep(pause.mul_f64(random()).max(Duration::from_millis(10))) => {}
                () = replica.leave.cancelled() => {}
                // A replica may have shown a root that is known only now.
                Ok(()) = bundles.changed() => {}
            }
        }
    }

    /// Connects, and stays connected for as long as that goes.
    async fn serve(&self, replica: &Replica, replicas: &Replicas) -> End {
        let connecting = tokio::select! {
            made = timeout(CONNECT, self.connect(replica.address, replicas)) => made,
            () = replica.leave.cancelled() => return End::Left,
        };
        let (link, mut driver) = match connecting {
            Ok(Ok(made)) => made,
            Ok(Err(reason)) => return End::Failed(reason),
            Err(_) => return End::Failed(format!("no answer within {CONNECT:?}")),
        };
        let introduced = tokio::select! {
            ended = &mut driver => {
                debug!(replica = %replica.address, ?ended, "the connection ended");
                return End::Lost;
            }
            introduced = timeout(CONNECT, self.introduce(&link)) => introduced,
            () = replica.leave.cancelled() => return End::Left,
        };
        match introduced {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return End::Failed(reason),
            Err(_) => return End::Failed(format!("no answer within {CONNECT:?}")),
        }
        debug!(replica = %replica.address, "connected to the controller");
        let svid = link.svid().clone();
        replica.connected(link.clone());
        replicas.metrics.connected(replica.address, true);
        replicas.connections.send_modify(|count| *count += 1);
        let end = tokio::select! {
            ended = &mut driver => {
                debug!(replica = %replica.address, ?ended, "the connection ended");
                return End::Lost;
            }
            reason = self.distrusts(&svid) => {
                link.cut();
                return End::Distrusted(reason);
            }
            () = self.outlives(&svid) => End::Outlived,
            () = replica.leave.cancelled() => End::Left,
        };
        replica.lost(&end.to_string());
        self.drain(link, driver);
        end
    }

    async fn connect(
        &self,
        address: SocketAddr,
        replicas: &Replicas,
    ) -> Result<(Arc<Link>, Driver), String> {
        let text = |error: std::io::Error| error.to_string();
        if self.bundles.current().is_none() {
            return Err("there is no trust bundle to verify the controller by yet".to_owned());
        }
        let stream = TcpStream::connect(address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let secured = self.tls.connect(stream).await;
        let (stream, svid) = secured.map_err(|error| match impostor(&error) {
            Some(impostor) => {
                replicas.metrics.handshake(Handshake::Refused);
                format!("refused: {impostor}")
            }
            None => {
                replicas.metrics.handshake(Handshake::Failed);
                format!("TLS: {error}")
            }
        })?;
        replicas.metrics.handshake(Handshake::Ok);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let link = Link::open(number, stream, svid, self.tracker.clone()).await;
        link.map_err(|error| format!("HTTP/2: {error}"))
    }

    async fn introduce(&self, link: &Link) -> Result<(), String> {
        let bearer = self.token.bearer().await.map_err(|error| error.to_string())?;
        let introduced = link.introduce(bearer).await;
        if introduced.is_err() {
            // kubelet may have written another one a moment ago.
            self.token.changed().await;
        }
        introduced
    }

    /// Ends when the bundle trusts this SVID no longer.
    async fn distrusts(&self, svid: &X509Svid) -> String {
        let mut bundles = self.bundles.subscribe();
        loop {
            bundles.mark_unchanged();
            if let Err(impostor) = self.tls.still_trusts(svid) {
                return impostor.to_string();
            }
            if bundles.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Ends with the SVID.
    async fn outlives(&self, svid: &X509Svid) {
        while let Ok(left) = svid.not_after().duration_since(self.clock.now()) {
            sleep(left.min(LOOK) + Duration::from_millis(1)).await;
        }
    }

    /// Lets calls under way end on a connection that gets no more.
    fn drain(&self, link: Arc<Link>, driver: Driver) {
        let cut = link.cutter();
        // The driver ends when nobody can call any longer.
        drop(link);
        self.tracker.spawn(async move {
            let _ = timeout(DRAIN, driver).await;
            cut.cancel();
        });
    }
}

// === impl End ===

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => f.write_str(reason),
            Self::Lost => f.write_str("the connection was lost"),
            Self::Distrusted(reason) => write!(f, "trusted no longer: {reason}"),
            Self::Outlived => f.write_str("its certificate has expired"),
            Self::Left => f.write_str("it is gone"),
        }
    }
}
