//! A pod that calls as any pod does.

use std::{path::PathBuf, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use svid_csi_proto::workload::{
    X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tokio::time::timeout;
use tonic::{Request, Status};

use crate::plugin::connect;

/// Only ends a test that has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Neighbour {
    socket: PathBuf,
    id: String,
}

// === impl Neighbour ===

impl Neighbour {
    pub fn new(socket: PathBuf, id: String) -> Self {
        Self { socket, id }
    }

    /// A call on a new connection gets this pod's SVID.
    pub async fn answered(&self) {
        let answer = timeout(PATIENCE, self.call()).await.expect("the neighbour is not answered");
        assert_eq!(answer.expect("the neighbour's call fails"), self.id);
    }

    async fn call(&self) -> Result<String, Status> {
        let channel = connect(&self.socket).await;
        let channel = channel.map_err(|error| Status::unknown(format!("connect: {error:?}")))?;
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
        let answer = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?;
        let message = answer.into_inner().message().await?;
        let message = message.ok_or_else(|| Status::unknown("the stream ends"))?;
        Ok(message.svids[0].spiffe_id.clone())
    }

    /// Calls one after the other while something else happens, and twice after it.
    pub async fn during<T>(&self, what: impl Future<Output = T>) -> (T, usize) {
        let mut what = pin!(what);
        let mut calls = 2;
        let seen = loop {
            match select(what, pin!(self.answered())).await {
                // The call that is under way is answered too.
                Either::Left((seen, call)) => {
                    call.await;
                    break seen;
                }
                Either::Right(((), rest)) => {
                    what = rest;
                    calls += 1;
                }
            }
        };
        self.answered().await;
        (seen, calls)
    }
}
