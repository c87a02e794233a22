//! Calls at a steady rate, all the while.

use std::time::Duration;

use tokio::{task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

use crate::http::get;

const EVERY: Duration = Duration::from_millis(50);

pub struct Traffic {
    stop: CancellationToken,
    calls: JoinHandle<(u64, Vec<String>)>,
}

/// One call from the client's pod to the server's: the SPIFFE ID that the server was told.
pub async fn call() -> Result<String, String> {
    match get(8081, "/").await {
        Ok((200, body)) => Ok(body),
        Ok((status, body)) => Err(format!("{status} {body}")),
        Err(error) => Err(error.to_string()),
    }
}

// === impl Traffic ===

impl Traffic {
    pub fn start(id: String) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let calls = tokio::spawn(async move {
            let (mut made, mut failures) = (0, Vec::new());
            let mut ticks = interval(EVERY);
            while !stopped.is_cancelled() {
                ticks.tick().await;
                made += 1;
                match call().await {
                    Ok(told) if told == id => {}
                    other => failures.push(format!("call {made}: {other:?}")),
                }
            }
            (made, failures)
        });
        Self { stop, calls }
    }

    /// How many calls were made; none may have failed.
    pub async fn stop(self) -> u64 {
        self.stop.cancel();
        let (made, failures) = self.calls.await.unwrap();
        assert!(failures.is_empty(), "{} of {made} failed: {failures:#?}", failures.len());
        made
    }
}
