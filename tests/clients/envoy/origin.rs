//! The application behind the server's Envoy: answers with the SPIFFE ID that it was told.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub struct Origin {
    seen: Arc<Mutex<Served>>,
    _serving: JoinSet<()>,
}

/// Requests, and the certificates that their senders had.
#[derive(Default)]
struct Served {
    requests: u64,
    certificates: BTreeSet<String>,
}

// === impl Origin ===

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:8080").await.unwrap();
        let seen = Arc::new(Mutex::new(Served::default()));
        let mut serving = JoinSet::new();
        let shared = seen.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move { serve(stream, &shared).await.unwrap_or_default() });
            }
        });
        Self { seen, _serving: serving }
    }

    pub fn served(&self) -> u64 {
        self.seen.lock().unwrap().requests
    }

    /// How many certificates callers had so far.
    pub fn callers(&self) -> usize {
        self.seen.lock().unwrap().certificates.len()
    }
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Served>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let mut caller = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(told) = line.strip_prefix("x-forwarded-client-cert: ") {
            caller = told.to_owned();
        }
        if !line.is_empty() {
            continue;
        }
        let part = |key: &str| {
            let part = caller.split(';').find_map(|part| part.strip_prefix(key));
            part.unwrap_or_default().to_owned()
        };
        let uri = part("URI=");
        {
            let mut seen = seen.lock().unwrap();
            seen.requests += 1;
            seen.certificates.insert(part("Hash="));
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{uri}", uri.len());
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
