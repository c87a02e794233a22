//! Invariant 1, for what is as good as a key while it lasts: no token in a log, an error, a metric
//! or a file.

use std::{fs, path::Path};

use super::{Behaviour, Cluster, TOKENS, driver_token, tokens};
use crate::{
    plugin::{Pod, on_a_node},
    process::get,
};

/// Whether any file below holds one of these.
fn holds(dir: &Path, secrets: &[&str]) -> Option<String> {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            if let Some(found) = holds(&path, secrets) {
                return Some(found);
            }
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let has =
                |secret: &&&str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            if let Some(secret) = secrets.iter().find(has) {
                return Some(format!("{}: {secret}", path.display()));
            }
        }
    }
    None
}

#[test]
fn no_token_is_to_be_found_anywhere() {
    on_a_node(async || {
        let mut cluster = Cluster::start(1, &[]).await;
        let driver = driver_token("c2lnbmF0dXJlLW9mLXRoZS1kcml2ZXI");
        fs::write(cluster.node.path("driver-token"), &driver).unwrap();
        let pod = Pod::new(1).with("jwt", "token=db");
        let pod_token = "cG9kLXRva2Vu.cG9kLXRva2Vu.cG9kLXRva2Vu";
        let mut told = Vec::new();
        cluster.publish(&pod, pod_token).await.unwrap();
        cluster.publish(&pod, "cmVwdWJsaXNoZWQ.cmVwdWJsaXNoZWQ.x").await.unwrap();
        for behaviour in [
            Behaviour::Denies,
            Behaviour::Fails(tonic::Code::Unauthenticated),
            Behaviour::Fails(tonic::Code::Internal),
        ] {
            cluster.shared.behave(behaviour);
            told.push(cluster.publish(&Pod::new(2), pod_token).await.unwrap_err().to_string());
            told.push(cluster.jwt(&pod, "other").await.unwrap_err().to_string());
        }
        let mut other = cluster.node.request(&pod);
        other.volume_context.insert("csi.svid.dev/ttl".to_owned(), "1m".to_owned());
        other.volume_context.insert(TOKENS.to_owned(), tokens(pod_token, "broken"));
        told.push(cluster.node.publish_raw(other).await.unwrap_err().to_string());
        cluster.restart().await;
        cluster.publish(&pod, pod_token).await.unwrap();
        told.push(get(&cluster.node, "/metrics").await.1);
        told.push(get(&cluster.node, "/readyz").await.1);
        told.push(cluster.node.log());
        assert!(cluster.node.log().contains("DEBUG"), "as much is logged as can be");

        let driver_part = driver.rsplit('.').next().unwrap();
        let secrets = [driver_part, "cG9kLXRva2Vu", "cmVwdWJsaXNoZWQ", "for-the-API-server"];
        for text in &told {
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
        }
        assert_eq!(holds(&cluster.node.kubelet(), &secrets), None);
        // The search finds what is there.
        fs::write(cluster.node.kubelet().join("copy"), pod_token).unwrap();
        assert!(holds(&cluster.node.kubelet(), &secrets).is_some());
        cluster.node.unpublish(&pod).await.unwrap();
    });
}
