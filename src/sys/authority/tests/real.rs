//! The real stack on both sides.

use std::{convert::Infallible, fs};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const RST_STREAM: u8 = 0x3;
const GO_AWAY: u8 = 0x7;

/// A server of the real stack answers a client that sends kubelet's `:authority`, and sends it
/// again by its index.
#[test]
fn a_real_server_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answered = async |wrapped: bool| {
            let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
            let service = tower::service_fn(async |_| {
                Ok::<_, Infallible>(hyper::Response::new(tonic::body::Body::empty()))
            });
            let service = hyper_util::service::TowerToHyperService::new(service);
            let builder =
                hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let serving = async {
                if wrapped {
                    let io = hyper_util::rt::TokioIo::new(RewriteAuthority::new(server));
                    drop(builder.serve_connection(io, service).await);
                } else {
                    let io = hyper_util::rt::TokioIo::new(server);
                    drop(builder.serve_connection(io, service).await);
                }
            };
            let calling = async {
                let first = request(&literal(b"\x41", "%2Fvar%2Fcsi.sock"));
                let again = request(b"\xc0");
                let sent =
                    [preface(), frame(HEADERS, ALL, 1, &first), frame(HEADERS, ALL, 3, &again)];
                client.write_all(&sent.concat()).await.unwrap();
                let mut kinds = Vec::new();
                while kinds.len() < 2 {
                    let mut header = [0; 9];
                    client.read_exact(&mut header).await.unwrap();
                    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
                    let mut body = vec![0; length as usize];
                    client.read_exact(&mut body).await.unwrap();
                    kinds.push(header[3]);
                    kinds.retain(|kind| [HEADERS, RST_STREAM, GO_AWAY].contains(kind));
                }
                kinds
            };
            tokio::select! {
                () = serving => panic!("the server hung up"),
                kinds = calling => kinds,
            }
        };
        assert_eq!(answered(true).await, [HEADERS, HEADERS]);
        assert_eq!(answered(false).await, [RST_STREAM, RST_STREAM], "no longer needed?");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The encoder of `h2`'s own client.
    #[test]
    fn h2_is_understood(
        sent in proptest::collection::vec(
            ("[a-z]{1,8}(:[0-9]{1,4})?", "(/[a-z]{0,9}){1,3}",
             proptest::collection::vec(("x-[a-c]", "[ -~]{0,300}"), 0..6)),
            1..40,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (client, server) = duplex(1 << 14);
        let mut wanted = Vec::new();
        let calls: Vec<_> = sent.iter().map(|(authority, path, others)| {
            let uri = format!("http://{authority}{path}");
            let mut call = http::Request::builder().uri(uri);
            let mut fields = vec![
                (b":method".to_vec(), b"GET".to_vec()),
                (b":authority".to_vec(), authority.clone().into_bytes()),
                (b":path".to_vec(), path.clone().into_bytes()),
            ];
            for (name, value) in others {
                // A field's value neither begins nor ends with a space.
                let value = value.trim();
                call = call.header(name, value);
                fields.push((name.clone().into_bytes(), value.as_bytes().to_vec()));
            }
            wanted.push(arriving(&fields));
            call.body(()).unwrap()
        }).collect();
        let arrived = runtime.block_on(async {
            let calling = async move {
                let (mut handle, connection) = h2::client::handshake(client).await.unwrap();
                let requests = async move {
                    for call in calls {
                        handle = handle.ready().await.unwrap();
                        let (answer, _) = handle.send_request(call, true).unwrap();
                        answer.await.unwrap();
                    }
                };
                let ((), connection) = tokio::join!(requests, connection);
                connection.unwrap();
            };
            let serving = async {
                let mut connection =
                    h2::server::handshake(RewriteAuthority::new(server)).await.unwrap();
                let mut arrived = Vec::new();
                while let Some(request) = connection.accept().await {
                    let (request, mut answer) = request.unwrap();
                    arrived.push(far_side::fields(&request));
                    answer.send_response(http::Response::new(()), true).unwrap();
                }
                arrived
            };
            tokio::join!(calling, serving).1
        });
        prop_assert_eq!(arrived, wanted);
    }
}

/// What encoders of others have made: each request of each arrives, with its `:authority` replaced.
#[test]
fn recorded_clients_are_understood() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/authority");
    let mut recorded = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        let path = seed.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(Ok(count)) = name.rsplit_once("-of-").map(|(_, count)| count.parse::<usize>())
        else {
            continue;
        };
        let bytes = fs::read(&path).unwrap();
        let (bare, _) = requests(Pieces::new(&bytes, &[]));
        let (arrived, well) = requests(RewriteAuthority::new(Pieces::new(&bytes, &[1, 50])));
        assert!(well, "{name}");
        assert_eq!(arrived.len(), count, "{name}");
        assert!(bare.len() < arrived.len(), "{name}: h2 takes it without us");
        for request in arrived {
            assert!(request.contains(&(":authority".to_owned(), b"u".to_vec())), "{name}");
        }
        recorded += 1;
    }
    assert!(recorded >= 4, "only {recorded} recordings");
}
