//! csi.sock and kubelet's registration socket: bound, watched, and bound again if someone
//! removes them.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use svid_csi_proto::{
    csi::v1::{identity_server::IdentityServer, node_server::NodeServer},
    pluginregistration::registration_server::RegistrationServer,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{identity::IdentityService, node::NodeService, registration::RegistrationService};
use crate::{
    node::Node,
    sys::{
        RewriteAuthority,
        socket::{self, SocketIdentity},
    },
};

/// Root only: whoever can call the driver can have any identity of this node.
const MODE: u32 = 0o600;
/// How often the sockets are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest wait before kubelet is asked again after it refused.
const MAX_REGISTRATION_DELAY: Duration = Duration::from_secs(60);

/// Where to serve, and as whom.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The CSI driver's name.
    pub driver_name: String,
    /// The node's name, which is its CSI node id.
    pub node_name: String,
    /// csi.sock; kubelet must find it at the same path.
    pub csi_socket: PathBuf,
    /// kubelet's plugin registry.
    pub registration_dir: PathBuf,
    /// For whom the pods' tokens are that the signer gets.
    pub token_audience: String,
}

/// The two sockets and what is behind them.
pub struct Server {
    csi: Endpoint,
    registration: Endpoint,
    refused: Arc<Notify>,
    node: Arc<Node>,
    config: ServerConfig,
}

/// Tells whether the sockets are there and answered; for `/livez`.
#[derive(Clone, Debug, Default)]
pub struct SocketHealth(Arc<Mutex<Vec<(PathBuf, SocketIdentity)>>>);

/// Why the sockets can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The name can't be bound.
    #[error("listen on {path}: {source}")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// gRPC ended, which it does only on a fault.
    #[error("serve gRPC: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// kubelet names the socket's path as its authority.
type Connection = RewriteAuthority<UnixStream>;

/// One socket's name, whatever listener is behind it now.
struct Endpoint {
    path: PathBuf,
    health: SocketHealth,
    connections: mpsc::Sender<io::Result<Connection>>,
    incoming: Option<mpsc::Receiver<io::Result<Connection>>>,
    bound: Option<Bound>,
}

struct Bound {
    identity: SocketIdentity,
    listener: Option<UnixListener>,
    accepting: Option<AbortHandle>,
}

// === impl Server ===

impl Server {
    /// Binds csi.sock; nothing is answered before [`Server::run`].
    pub fn bind(
        config: ServerConfig,
        node: Arc<Node>,
        health: SocketHealth,
    ) -> Result<Self, ServeError> {
        let name = format!("{}-reg.sock", config.driver_name);
        let registration = Endpoint::new(config.registration_dir.join(name), health.clone());
        let mut csi = Endpoint::new(config.csi_socket.clone(), health);
        csi.bind()?;
        Ok(Self { csi, registration, refused: Arc::default(), node, config })
    }

    /// Serves until `stop`, then removes both names and finishes the calls under way.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ServeError> {
        let ServerConfig { driver_name, node_name, csi_socket, token_audience, .. } =
            self.config.clone();
        let identity =
            IdentityService { driver_name: driver_name.clone(), node: self.node.clone() };
        let service = NodeService { node_name, node: self.node.clone(), token_audience };
        let refused = self.refused.clone();
        let registration = RegistrationService { driver_name, endpoint: csi_socket, refused };
        let csi = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(identity))
            .add_service(NodeServer::new(service))
            .serve_with_incoming_shutdown(self.csi.incoming(), stop.clone().cancelled_owned());
        let register = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(registration))
            .serve_with_incoming_shutdown(
                self.registration.incoming(),
                stop.clone().cancelled_owned(),
            );
        let mut accepting = JoinSet::new();
        self.csi.accept(&mut accepting);
        // kubelet calls as soon as it sees the name, so csi.sock comes first.
        self.registration.bind()?;
        self.registration.accept(&mut accepting);
        info!(socket = %self.csi.path.display(), "serving CSI");
        let watch = self.watch(&mut accepting, stop);
        let watch = async {
            watch.await;
            Ok(())
        };
        tokio::try_join!(csi, register, watch)?;
        Ok(())
    }

    /// Keeps both names bound. Kubelet may wipe its registry, and people clean up.
    async fn watch(&mut self, accepting: &mut JoinSet<()>, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut delay = Duration::from_secs(1);
        let refused = self.refused.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {
                    for endpoint in [&mut self.csi, &mut self.registration] {
                        endpoint.restore(accepting);
                    }
                }
                () = refused.notified() => {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(delay) => {}
                    }
                    delay = (delay * 2).min(MAX_REGISTRATION_DELAY);
                    // A new name in the registry makes kubelet try again.
                    self.registration.remove();
                    self.registration.restore(accepting);
                }
                Some(_) = accepting.join_next() => {}
            }
        }
        // Deregister first, so that kubelet makes no call that nobody answers.
        self.registration.remove();
        self.csi.remove();
        accepting.abort_all();
    }
}

// === impl Endpoint ===

impl Endpoint {
    fn new(path: PathBuf, health: SocketHealth) -> Self {
        let (connections, incoming) = mpsc::channel(64);
        Self { path, health, connections, incoming: Some(incoming), bound: None }
    }

    /// Every connection, whichever listener took it.
    fn incoming(&mut self) -> ReceiverStream<io::Result<Connection>> {
        let fallback = || mpsc::channel(1).1;
        ReceiverStream::new(self.incoming.take().unwrap_or_else(fallback))
    }

    fn bind(&mut self) -> Result<(), ServeError> {
        let bound = socket::bind_private(&self.path, MODE).and_then(|listener| {
            let identity = socket::identity(&self.path)?.ok_or(io::ErrorKind::NotFound)?;
            Ok(Bound { identity, listener: Some(listener), accepting: None })
        });
        let bound = bound.map_err(|source| ServeError::Bind { path: self.path.clone(), source })?;
        self.health.set(&self.path, bound.identity);
        self.bound = Some(bound);
        Ok(())
    }

    /// Starts to take connections.
    fn accept(&mut self, accepting: &mut JoinSet<()>) {
        let Some(bound) = &mut self.bound else { return };
        let Some(listener) = bound.listener.take() else {
            return;
        };
        let connections = self.connections.clone();
        bound.accepting = Some(accepting.spawn(async move {
            loop {
                let connection = listener.accept().await;
                let connection = connection.map(|(stream, _)| RewriteAuthority::new(stream));
                if let Err(error) = &connection {
                    // Out of descriptors, most likely: it passes.
                    warn!(%error, "accept");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                if connections.send(connection).await.is_err() {
                    return;
                }
            }
        }));
    }

    /// Binds the name again if it is no longer ours. Open connections go on.
    fn restore(&mut self, accepting: &mut JoinSet<()>) {
        let ours = self.bound.as_ref().map(|bound| bound.identity);
        if ours.is_some() && socket::identity(&self.path).ok().flatten() == ours {
            return;
        }
        if let Some(old) = self.bound.take().and_then(|bound| bound.accepting) {
            old.abort();
        }
        match self.bind() {
            Ok(()) => {
                warn!(socket = %self.path.display(), "the socket was removed; bound again");
                self.accept(accepting);
            }
            Err(error) => warn!(%error, "the socket was removed and can't be bound"),
        }
    }

    fn remove(&mut self) {
        let Some(bound) = self.bound.take() else {
            return;
        };
        if let Err(error) = socket::remove_if(&self.path, bound.identity) {
            warn!(socket = %self.path.display(), %error, "could not remove the socket");
        }
        if let Some(accepting) = bound.accepting {
            accepting.abort();
        }
    }
}

// === impl SocketHealth ===

impl SocketHealth {
    fn set(&self, path: &std::path::Path, identity: SocketIdentity) {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|(known, _)| known != path);
        sockets.push((path.to_owned(), identity));
    }

    /// Connects to every socket; `Err` names one that isn't ours or isn't answered. Blocks.
    pub fn check(&self) -> Result<(), String> {
        let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if sockets.len() < 2 {
            return Err("not registered with kubelet yet".to_owned());
        }
        for (path, identity) in sockets {
            let shown = path.display();
            match socket::identity(&path) {
                Ok(Some(found)) if found == identity => {}
                Ok(_) => return Err(format!("{shown} was removed or replaced")),
                Err(error) => return Err(format!("{shown}: {error}")),
            }
            socket::connect(&path).map_err(|error| format!("{shown}: {error}"))?;
        }
        Ok(())
    }
}
