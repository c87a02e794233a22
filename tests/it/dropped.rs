//! Calls that kubelet gives up on, at every step of the work: the work goes on, a retry joins it,
//! and nothing half-done stays (invariants 2 and 7).

use std::{
    net::Shutdown,
    os::unix::net::UnixStream as StdStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use svid_csi::sys::socket;
use svid_csi_proto::csi::v1::{NodeUnpublishVolumeRequest, node_client::NodeClient};
use tokio::{net::UnixStream, task::JoinSet, time::timeout};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{
    crash::{Call, call},
    invariants::{assert_gone, assert_rotates, assert_sound, assert_tidy},
    plugin::{Node, Pod, eventually, on_a_node},
    steps::{Steps, Stop, Then},
    volume::checked,
};

/// Longer than the work takes, so that most calls wait at the step where it is held.
const DEADLINE: Duration = Duration::from_millis(100);

/// How a call is given up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum GiveUp {
    /// By `grpc-timeout`.
    Deadline,
    /// The connection breaks.
    Reset,
}

/// What comes while the work still stands at its step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// The same call again.
    Retry,
    /// Nothing, until the work is done.
    Nothing,
    /// The call that undoes it.
    Opposite,
}

#[test]
fn a_publish_that_is_given_up_at_any_step_goes_on() {
    on_a_node(|| given_up_at_every_step(Call::Publish));
}

#[test]
fn an_unpublish_that_is_given_up_at_any_step_goes_on() {
    on_a_node(|| given_up_at_every_step(Call::Unpublish));
}

async fn given_up_at_every_step(made: Call) {
    let node = Node::started(&[]).await;
    let short = [1, 2].map(|n| Pod::new(n).with("ttl", "10s"));
    for pod in &short {
        node.publish(pod).await.unwrap();
    }
    let mut next = 1_000;
    let mut pod = async || {
        next += 1;
        let mut pod = Pod::new(next);
        pod.fs_group = Some("2000".to_owned());
        node.prepare(&pod);
        if made == Call::Unpublish {
            node.publish(&pod).await.unwrap();
        }
        pod
    };
    let first = pod().await;
    let steps = watch(&node, &first, usize::MAX).await;
    call(&node, first.clone(), made).await.2.unwrap();
    let count = steps.release().await.len();
    assert!(count >= 15, "{count} steps");
    node.unpublish(&first).await.unwrap();

    for n in 1..=count {
        for (how, next) in [
            (GiveUp::Reset, Next::Retry),
            (GiveUp::Deadline, Next::Nothing),
            (GiveUp::Reset, Next::Opposite),
        ] {
            given_up(&node, pod().await, made, n, how, next).await;
        }
        assert_sound(&node, &short, &[]);
    }
    println!("{count} steps");
    assert_tidy(&node, &short);
    assert_rotates(&node, &short, &[]).await;
}

async fn given_up(node: &Node, pod: Pod, made: Call, n: usize, how: GiveUp, next: Next) {
    let mut steps = watch(node, &pod, n).await;
    let (csi, connection) = connect(node).await;
    let mut given = JoinSet::new();
    let deadline = (how == GiveUp::Deadline).then_some(DEADLINE);
    given.spawn(call_with(csi, node, &pod, made, deadline));
    if how == GiveUp::Reset {
        assert!(steps.stopped().await, "step {n}");
        connection.shutdown(Shutdown::Both).unwrap();
    }
    let error = given.join_next().await.unwrap().unwrap().unwrap_err();
    if how == GiveUp::Deadline {
        assert!(steps.stopped().await, "step {n}");
        let codes = [Code::DeadlineExceeded, Code::Cancelled];
        assert!(codes.contains(&error.code()), "{error}");
    }
    // Others are served meanwhile, and by then the plugin knows that nobody waits.
    assert!(node.answers().await);

    let expected = match (made, next) {
        (_, Next::Nothing) => {
            steps.release().await;
            eventually("the work is done", async || {
                match made {
                    Call::Publish => node.record(&pod)?["state"] == "live",
                    Call::Unpublish => !node.target(&pod).exists(),
                }
                .then_some(())
            })
            .await;
            made
        }
        (_, next) => {
            let then = match (next, made) {
                (Next::Opposite, Call::Publish) => Call::Unpublish,
                (Next::Opposite, Call::Unpublish) => Call::Publish,
                _ => made,
            };
            let mut calls = JoinSet::new();
            calls.spawn(call(node, pod.clone(), then));
            let early = timeout(Duration::from_millis(5), calls.join_next()).await;
            assert!(early.is_err(), "it did not wait for the work");
            steps.release().await;
            let (_, _, result) = calls.join_next().await.unwrap().unwrap();
            result.unwrap_or_else(|error| panic!("step {n}, {next:?}: {error}"));
            then
        }
    };
    settle(node, &pod, made, expected).await;
}

/// The last call was this one: it can be repeated, and what it is for is so.
async fn settle(node: &Node, pod: &Pod, made: Call, last: Call) {
    let serial = || checked(node, pod).svid.serial_hex().to_owned();
    match last {
        Call::Publish => {
            let before = serial();
            node.publish(pod).await.unwrap();
            assert_eq!(serial(), before);
            if made == Call::Publish {
                let volume = pod.volume_id();
                let log = node.log();
                let published = |line: &&str| {
                    line.contains("\"message\":\"published\"") && line.contains(&volume)
                };
                assert_eq!(log.lines().filter(published).count(), 1, "issued again");
            }
        }
        Call::Unpublish => assert_gone(node, pod),
    }
    node.unpublish(pod).await.unwrap();
    assert_gone(node, pod);
}

/// The one wait in the middle of a publish with a local CA: an RSA key takes its time.
#[test]
fn a_publish_that_is_given_up_while_its_key_is_made_goes_on_or_gives_way() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let mut live = Vec::new();
        for n in 0..6 {
            let pod = Pod::new(n).with("key-algorithm", "rsa-2048");
            node.prepare(&pod);
            let (csi, connection) = connect(&node).await;
            let mut given = JoinSet::new();
            given.spawn(call_with(csi, &node, &pod, Call::Publish, None));
            eventually("it is under way", async || node.record(&pod)).await;
            connection.shutdown(Shutdown::Both).unwrap();
            // An answer may have been faster.
            let _ = given.join_next().await.unwrap();
            if n % 2 == 0 {
                eventually("its work is done", async || {
                    (node.record(&pod)?["state"] == "live").then_some(())
                })
                .await;
                live.push(pod);
            } else {
                node.unpublish(&pod).await.unwrap();
                assert_gone(&node, &pod);
            }
        }
        assert_tidy(&node, &live);
    });
}

/// Deadlines from far too short to long enough, many at a time.
#[test]
fn deadlines_of_any_length_leave_nothing_half_done() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let short = [Pod::new(1).with("ttl", "10s")];
        node.publish(&short[0]).await.unwrap();
        let pods: Vec<Pod> = (1_000..1_200).map(Pod::new).collect();
        for made in [Call::Publish, Call::Unpublish] {
            let mut failed = 0;
            for some in pods.chunks(8) {
                let mut calls = JoinSet::new();
                for pod in some {
                    node.prepare(pod);
                    let n: u32 = pod.name.trim_start_matches("cart-").parse().unwrap();
                    // 20 µs to 80 ms.
                    let exponent = f64::from(n - 1_000) / 200.0 * 12.0;
                    let deadline = Duration::from_micros(20).mul_f64(exponent.exp2());
                    let (csi, _) = connect(&node).await;
                    calls.spawn(call_with(csi, &node, pod, made, Some(deadline)));
                }
                let results = calls.join_all().await;
                failed += results.iter().filter(|result| result.is_err()).count();
            }
            println!("{made:?}: {failed} of {} given up", pods.len());
            assert!(failed > 10, "{failed}");
            let mut retries = JoinSet::new();
            for pod in &pods {
                retries.spawn(call(&node, pod.clone(), made));
            }
            for (pod, _, result) in retries.join_all().await {
                result.unwrap();
                match made {
                    Call::Publish => drop(checked(&node, &pod)),
                    Call::Unpublish => assert_gone(&node, &pod),
                }
            }
        }
        assert_tidy(&node, &short);
        assert_rotates(&node, &short, &[]).await;
    });
}

async fn watch(node: &Node, pod: &Pod, n: usize) -> Steps {
    let dir = node.kubelet().join("pods").join(&pod.uid);
    Steps::watch(node.pid(), &dir, Stop::Before(n), Then::Hold).await
}

/// A connection of kubelet's, and the means to break it.
async fn connect(node: &Node) -> (NodeClient<Channel>, StdStream) {
    let (path, kept) = (node.csi_socket(), Arc::new(Mutex::new(None)));
    let keep = kept.clone();
    let connector = service_fn(move |_: Uri| {
        let (path, keep) = (path.clone(), keep.clone());
        async move {
            let stream = socket::connect(&path)?;
            *keep.lock().unwrap() = Some(stream.try_clone()?);
            stream.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(UnixStream::from_std(stream)?))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let stream = kept.lock().unwrap().take().unwrap();
    (NodeClient::new(channel), stream)
}

fn call_with(
    mut csi: NodeClient<Channel>,
    node: &Node,
    pod: &Pod,
    made: Call,
    deadline: Option<Duration>,
) -> impl Future<Output = Result<(), Status>> + use<> {
    fn request<T>(message: T, deadline: Option<Duration>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        request
    }
    let publish = node.request(pod);
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: publish.volume_id.clone(),
        target_path: publish.target_path.clone(),
    };
    async move {
        match made {
            Call::Publish => csi.node_publish_volume(request(publish, deadline)).await.map(|_| ()),
            Call::Unpublish => {
                csi.node_unpublish_volume(request(unpublish, deadline)).await.map(|_| ())
            }
        }
    }
}
