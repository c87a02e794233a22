//! Nodes' calls: each node has a connection of its own and so many calls under way on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use svid_csi_proto::issuer::v1::{
    IssueJwtSvidRequest, IssueX509SvidRequest, issue_jwt_svid_response as jwt,
    issue_x509_svid_response as x509, issuer_client::IssuerClient,
};
use tokio::task::JoinSet;
use tonic::{Request, metadata::AsciiMetadataValue, transport::Channel};

use super::tls;
use crate::sample::Sample;

/// What a node asks for.
#[derive(Clone)]
pub enum Wish {
    X509(IssueX509SvidRequest),
    Jwt(IssueJwtSvidRequest),
}

/// A node with a connection and what it is going to ask for.
pub struct Caller {
    client: IssuerClient<Channel>,
    token: AsciiMetadataValue,
    wishes: Arc<Vec<Wish>>,
}

/// What came of it.
pub struct Run {
    pub took: Duration,
    pub each: Sample,
}

// === impl Caller ===

impl Caller {
    pub async fn connect(address: SocketAddr, token: &str, wishes: Vec<Wish>) -> Self {
        Self {
            client: IssuerClient::new(tls::channel(address).await.unwrap()),
            token: format!("Bearer {token}").parse().unwrap(),
            wishes: Arc::new(wishes),
        }
    }

    pub fn set(&mut self, wishes: Vec<Wish>) {
        self.wishes = Arc::new(wishes);
    }
}

/// Everything that the callers want, `wide` at a time each.
pub async fn run(callers: &[Caller], wide: usize) -> Run {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for caller in callers {
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..wide {
            let (mut client, token) = (caller.client.clone(), caller.token.clone());
            let (wishes, next) = (caller.wishes.clone(), next.clone());
            tasks.spawn(async move {
                let mut took = Vec::new();
                while let Some(wish) = wishes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    ask(&mut client, &token, wish).await.unwrap();
                    took.push(began.elapsed());
                }
                took
            });
        }
    }
    let each = tasks.join_all().await.concat().into_iter().collect();
    Run { took: began.elapsed(), each }
}

/// One call; what was not issued is an error.
pub async fn ask(
    client: &mut IssuerClient<Channel>,
    token: &AsciiMetadataValue,
    wish: &Wish,
) -> Result<(), String> {
    match wish {
        Wish::X509(wish) => {
            let mut request = Request::new(wish.clone());
            request.metadata_mut().insert("authorization", token.clone());
            let answer =
                client.issue_x509_svid(request).await.map_err(|error| error.to_string())?;
            match answer.into_inner().answer {
                Some(x509::Answer::Issued(_)) => Ok(()),
                Some(x509::Answer::Denied(denial)) => Err(denial.message),
                None => Err("an empty answer".to_owned()),
            }
        }
        Wish::Jwt(wish) => {
            let mut request = Request::new(wish.clone());
            request.metadata_mut().insert("authorization", token.clone());
            let answer = client.issue_jwt_svid(request).await.map_err(|error| error.to_string())?;
            match answer.into_inner().answer {
                Some(jwt::Answer::Issued(_)) => Ok(()),
                Some(jwt::Answer::Denied(denial)) => Err(denial.message),
                None => Err("an empty answer".to_owned()),
            }
        }
    }
}

// === impl Run ===

impl Run {
    pub fn rate(&self) -> f64 {
        self.each.len() as f64 / self.took.as_secs_f64()
    }
}
