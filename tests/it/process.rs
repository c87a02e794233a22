//! The process: settings, sockets, registration with kubelet, health, an orderly end.

use std::{
    fs,
    os::unix::{net::UnixListener, process::ExitStatusExt},
    path::Path,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use svid_csi_proto::{
    csi::v1::{
        GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest,
        identity_client::IdentityClient,
        node_service_capability::{Type, rpc},
    },
    pluginregistration::{
        InfoRequest, RegistrationStatus, registration_client::RegistrationClient,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    plugin::{Node, Pod, connect, eventually, on_a_node},
    volume::checked,
};

fn http_address(node: &Node) -> String {
    let log = node.log();
    let ready = log.lines().rev().find(|line| line.contains(r#""message":"ready""#)).unwrap();
    let ready: serde_json::Value = serde_json::from_str(ready).unwrap();
    ready["http"].as_str().unwrap().to_owned()
}

/// Status and body of an HTTP endpoint.
pub async fn get(node: &Node, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(http_address(node)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn registration(node: &Node) -> RegistrationClient<tonic::transport::Channel> {
    let socket = node.registration_socket();
    let channel = eventually("reg.sock answers", async || connect(&socket).await.ok()).await;
    RegistrationClient::new(channel)
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[test]
fn settings_that_cannot_be_used_name_themselves_and_exit_64() {
    on_a_node(async || {
        for (arguments, parts) in [
            (&["--driver-name", ".x"][..], &["--driver-name"][..]),
            (&["--driver-name", &"x".repeat(64)], &["--driver-name", "63"]),
            (&["--trust-domain", "Example.ORG"], &["--trust-domain"]),
            (&["--trust-domain", ""], &["--trust-domain"]),
            (&["--node-name", ""], &["--node-name"]),
            (&["--default-ttl", "5s"], &["--default-ttl", "10s"]),
            (&["--default-ttl", "25h"], &["--default-ttl", "24h"]),
            (&["--max-ttl", "25h"], &["--max-ttl", "24h"]),
            (&["--max-ttl", "long"], &["--max-ttl"]),
            (&["--ca-propagation", "x"], &["--ca-propagation"]),
            (&["--http-listen", "nowhere"], &["--http-listen"]),
            (&["--kubelet-dir", "relative"], &["--kubelet-dir"]),
            (&["--kubelet-dir", "/dev/null"], &["--kubelet-dir", "/dev/null"]),
            (&["--csi-socket", "relative"], &["--csi-socket"]),
            (&["--signer", "csr"], &["--ca-create", "controller"]),
            (&["--signer", "nobody"], &["--signer", "local"]),
            (&["--log-level", "loud"], &["--log-level"]),
            (&["--log-format", "xml"], &["--log-format"]),
            (&["--no-such-flag"], &["--no-such-flag"]),
        ] {
            let mut node = Node::new(arguments);
            let (status, log) = node.run_to_end().await;
            assert_eq!(status, Some(64), "{arguments:?}: {log}");
            for part in parts {
                assert!(log.contains(part), "{part} is not in {log}");
            }
        }
    });
}

#[test]
fn every_flag_has_an_environment_variable() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_svid-csi"))
        .args(["node", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "driver-name",
        "node-name",
        "trust-domain",
        "kubelet-dir",
        "csi-socket",
        "registration-dir",
        "signer",
        "ca-dir",
        "ca-create",
        "ca-propagation",
        "default-ttl",
        "max-ttl",
        "http-listen",
        "log-format",
        "log-level",
    ] {
        let variable = format!("SVID_CSI_{}", flag.replace('-', "_").to_uppercase());
        assert!(help.contains(&format!("--{flag}")), "{flag}");
        assert!(help.contains(&variable), "{variable}");
    }
    assert!(help.contains("Examples:"));
}

#[test]
fn identity_and_capabilities() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let mut identity = IdentityClient::new(node.channel().await.unwrap());
        let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.name, "csi.svid.dev");
        assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
        let mut csi = node.csi().await;
        let info = csi.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.node_id, "node-1");
        let capabilities = csi.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap();
        let capabilities: Vec<_> = capabilities
            .into_inner()
            .capabilities
            .into_iter()
            .map(|capability| match capability.r#type {
                Some(Type::Rpc(rpc)) => rpc.r#type(),
                None => rpc::Type::Unknown,
            })
            .collect();
        let expected =
            [rpc::Type::VolumeMountGroup, rpc::Type::GetVolumeStats, rpc::Type::VolumeCondition];
        assert_eq!(capabilities, expected);
    });
}

#[test]
fn kubelet_registers_the_driver_and_again_after_it_refused() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        let mut client = registration(&node).await;
        let info = client.get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "csi.svid.dev"));
        assert_eq!(info.endpoint, node.csi_socket().display().to_string());
        assert_eq!(info.supported_versions, ["1.0.0"]);
        let accepted = RegistrationStatus { plugin_registered: true, error: String::new() };
        client.notify_registration_status(accepted).await.unwrap();

        let before = inode(&node.registration_socket());
        let refused = RegistrationStatus { plugin_registered: false, error: "no".to_owned() };
        client.notify_registration_status(refused).await.unwrap();
        eventually("reg.sock is made anew", async || {
            let now = inode(&node.registration_socket());
            (now.is_some() && now != before).then_some(())
        })
        .await;
        registration(&node).await.get_info(InfoRequest {}).await.unwrap();
    });
}

#[test]
fn sockets_that_are_wiped_come_back() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        registration(&node).await;
        let mut old = node.csi().await;
        fs::remove_file(node.registration_socket()).unwrap();
        fs::remove_file(node.csi_socket()).unwrap();
        registration(&node).await.get_info(InfoRequest {}).await.unwrap();
        eventually("csi.sock answers", async || node.channel().await.ok()).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        old.node_get_info(NodeGetInfoRequest {}).await.expect("open connections go on");
        eventually("healthy again", async || (get(&node, "/livez").await.0 == 200).then_some(()))
            .await;
    });
}

#[test]
fn a_socket_path_that_is_occupied_is_not_taken() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        fs::create_dir_all(node.csi_socket().parent().unwrap()).unwrap();
        let other = UnixListener::bind(node.csi_socket()).unwrap();
        let (status, log) = node.run_to_end().await;
        assert_eq!(status, Some(1));
        assert!(log.contains("is listening"), "{log}");
        drop(other);
        fs::remove_file(node.csi_socket()).unwrap();
        fs::write(node.csi_socket(), "precious").unwrap();
        let (status, log) = node.run_to_end().await;
        assert_eq!(status, Some(1));
        assert!(log.contains("not a socket"), "{log}");
        assert_eq!(fs::read_to_string(node.csi_socket()).unwrap(), "precious");
    });
}

#[test]
fn a_stale_socket_of_a_killed_process_is_replaced() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        node.kill().await;
        assert!(node.csi_socket().exists());
        node.start().await;
        node.publish(&Pod::new(1)).await.unwrap();
    });
}

#[test]
fn health_and_metrics() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        registration(&node).await;
        assert_eq!(get(&node, "/livez").await, (200, "ok\n".to_owned()));
        assert_eq!(get(&node, "/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(&node, "/secret").await.0, 404);
        node.publish(&Pod::new(1)).await.unwrap();
        node.publish(&Pod::new(2)).await.unwrap();
        node.publish(&Pod::new(3).with("ttl", "1s")).await.unwrap_err();
        node.unpublish(&Pod::new(2)).await.unwrap();
        let (status, metrics) = get(&node, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            r#"svid_csi_publishes_total{result="ok",class=""} 2"#,
            r#"svid_csi_publishes_total{result="error",class="invalid"} 1"#,
            r#"svid_csi_unpublishes_total{result="ok",class=""} 1"#,
            r#"svid_csi_volumes{state="live"} 1"#,
            r#"svid_csi_volumes{state="expired"} 0"#,
            "svid_csi_publish_duration_seconds_count 3",
            "svid_csi_sign_duration_seconds_count 2",
            concat!("svid_csi_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
        }
        let value = |name: &str| -> f64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        assert!((3_000.0..=3_600.0).contains(&value("svid_csi_nearest_svid_expiry_seconds ")));
        assert!(metrics.contains("svid_csi_nearest_failing_svid_expiry_seconds inf\n"));
        assert!(value("svid_csi_ca_expiry_timestamp_seconds ") > 2_000_000_000.0);
        assert!(metrics.ends_with("# EOF\n"));
    });
}

/// Whoever reaches the port must not keep kubelet's probe from it.
#[test]
fn idle_connections_keep_nobody_from_the_health_endpoints() {
    on_a_node(async || {
        let node = Node::started(&[]).await;
        registration(&node).await;
        let address = http_address(&node);
        let mut idle = Vec::new();
        for _ in 0..200 {
            idle.push(TcpStream::connect(&address).await.unwrap());
        }
        assert_eq!(get(&node, "/livez").await.0, 200);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count();
        assert!(descriptors < 120, "{descriptors}");
    });
}

/// A rollout must not wait for a start that waits for another plugin.
#[test]
fn a_signal_ends_a_start_that_is_not_done() {
    on_a_node(async || {
        let first = Node::started(&[]).await;
        let kubelet = first.kubelet().display().to_string();
        let mut second = Node::new(&["--kubelet-dir", &kubelet]);
        second.launch();
        eventually("it waits", async || {
            second.log().contains("waiting for another node plugin").then_some(())
        })
        .await;
        let began = std::time::Instant::now();
        assert_eq!(second.terminate().await, Some(0), "{}", second.log());
        assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
        first.publish(&Pod::new(1)).await.unwrap();
    });
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(1_000), hard).unwrap();
        node.start().await;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().nth(3), Some(hard.to_string().as_str()), "{files}");
    });
}

/// Invariant 1: no key reaches the disk by a core dump.
#[test]
fn a_crash_dumps_no_memory() {
    on_a_node(async || {
        let mut node = Node::new(&[]);
        // Whatever the process inherits.
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        setrlimit(Resource::RLIMIT_CORE, hard, hard).unwrap();
        node.start().await;
        setrlimit(Resource::RLIMIT_CORE, soft, hard).unwrap();
        let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(node.pid()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGABRT).unwrap();
        let status = node.ended().await;
        assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    });
}

#[test]
fn an_orderly_end_leaves_every_mount() {
    on_a_node(async || {
        let mut node = Node::started(&[]).await;
        registration(&node).await;
        let pod = Pod::new(1);
        node.publish(&pod).await.unwrap();
        let before = checked(&node, &pod).svid.serial_hex().to_owned();
        assert_eq!(node.terminate().await, Some(0), "{}", node.log());
        assert!(!node.registration_socket().exists() && !node.csi_socket().exists());
        assert_eq!(checked(&node, &pod).svid.serial_hex(), before);
        node.start().await;
        node.publish(&pod).await.unwrap();
        assert_eq!(checked(&node, &pod).svid.serial_hex(), before, "nothing is issued again");
        let mut identity = IdentityClient::new(node.channel().await.unwrap());
        let probe = identity.probe(ProbeRequest {}).await.unwrap().into_inner();
        assert_eq!(probe.ready, Some(true));
    });
}
