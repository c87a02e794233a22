//! The Workload API's socket in a volume: whether it is there, and whether somebody answers.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio::time::timeout;
use tonic::Request;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::report::{Code, Inspected};
use crate::{
    cli::{channel, fetch::Trouble},
    volume::VolumeSpec,
};

/// A socket that serves a volume.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Socket {
    pub(super) name: String,
    pub(super) state: State,
}

/// What came of asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// It answers, and has an identity for the pod.
    Serving,
    /// It answers, and has none now.
    NotServing,
    /// There is no such name.
    Missing,
    /// Nobody accepts connections, or nobody answers.
    Silent,
    /// This user may not connect.
    Forbidden,
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A volume has a few names in its root.
const MAX_NAMES: usize = 256;

// === impl State ===

impl State {
    pub(super) fn for_people(self) -> &'static str {
        match self {
            Self::Serving => "answers",
            Self::NotServing => "answers that there is no identity now",
            Self::Missing => "missing",
            Self::Silent => "does not answer",
            Self::Forbidden => "not for this user",
        }
    }
}

/// Asks the socket that the volume should have; without its record, the one that it has.
pub(super) fn judge(
    result: &mut Inspected,
    volume: &Path,
    spec: Option<&VolumeSpec>,
) -> Option<Socket> {
    let name = match spec {
        Some(spec) => spec.socket.clone()?,
        None => found(volume)?,
    };
    let state = ask(volume.join(&name));
    match state {
        State::Serving | State::NotServing | State::Forbidden => {}
        State::Missing => {
            let action =
                "the node plugin makes it when it starts: look whether it runs on this node";
            result.error(Code::Socket, format!("there is no socket {name}"), action);
        }
        State::Silent => {
            let action =
                "the node plugin is not running on this node, or just starting: look at its log";
            result.error(Code::Socket, format!("nobody answers at {name}"), action);
        }
    }
    Some(Socket { name, state })
}

fn found(volume: &Path) -> Option<String> {
    let entries = fs::read_dir(volume).ok()?.take(MAX_NAMES).flatten();
    let mut sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.find_map(|entry| {
        entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))
    })
}

fn ask(path: PathBuf) -> State {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return State::Silent;
    };
    let asked = runtime.block_on(async {
        timeout(PATIENCE, async {
            let channel = channel::unix(path, PATIENCE).await.map_err(Trouble::connection)?;
            let request = Request::new(HealthCheckRequest::default());
            Ok(HealthClient::new(channel).check(request).await?.into_inner().status())
        })
        .await
    });
    // A connection that nobody accepts would be waited for.
    runtime.shutdown_background();
    match asked {
        Ok(Ok(ServingStatus::Serving)) => State::Serving,
        Ok(Ok(_)) => State::NotServing,
        Ok(Err(Trouble::Connection(Some(ErrorKind::NotFound), _))) => State::Missing,
        Ok(Err(Trouble::Connection(Some(ErrorKind::PermissionDenied), _))) => State::Forbidden,
        Ok(Err(_)) | Err(_) => State::Silent,
    }
}
