//! From nothing to five pods with verified identities.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{CLIENT, SERVER, Script, millis};
use crate::{
    cli::demo::{
        handshake::{self, Meeting},
        openssl,
        plugin::csi_socket,
        pod::PODS,
        show::rounded,
    },
    clock::{Clock, SystemClock},
    sys::namespace::Isolation,
};

// === impl Script ===

impl Script<'_> {
    pub(super) async fn ground(&mut self, isolation: Isolation, openssl: &str) -> Result<()> {
        self.show.step(
            "A node of its own",
            "No cluster: a temporary kubelet directory, and nothing that stays.",
        )?;
        let (name, text) = match isolation {
            Isolation::Mount => ("mount", "mounts only in a mount namespace of its own"),
            Isolation::UserAndMount => (
                "user",
                "mounts only in a user and mount namespace of its own: no privilege outside",
            ),
        };
        self.show.check("namespace", text, json!({ "namespace": name }))?;
        let root = self.stage.root().display().to_string();
        let text = format!("files only in {root}");
        self.show.check("directory", &text, json!({ "directory": root }))?;
        let text = format!("{openssl} will check what is claimed here");
        self.show.check("openssl", &text, json!({ "version": openssl }))?;
        self.breathe().await
    }

    pub(super) async fn start(&mut self) -> Result<()> {
        self.show.step(
            "The node plugin starts",
            "The process that runs on every node of a cluster, here with a CA of its own.",
        )?;
        self.start_plugin().await?;
        let endpoint = self.stage.plugin()?.register().await?;
        ensure!(
            endpoint == csi_socket(&self.stage.kubelet()),
            "it registered {}",
            endpoint.display()
        );
        let text = "registered as kubelet does it: csi.svid.dev, at csi.sock";
        self.show.check("registered", text, json!({ "endpoint": endpoint }))?;
        self.breathe().await
    }

    pub(super) async fn publish(&mut self) -> Result<()> {
        self.show.step(
            "Five pods get their volumes",
            "NodePublishVolume answers only once key, certificate and bundle are in place.",
        )?;
        for pod in PODS {
            let took = self.stage.plugin()?.publish(&pod).await?;
            let target = pod.target(&self.stage.kubelet());
            let now = SystemClock.now();
            let volume = self.watch.add(pod, target, now)?;
            let fields = json!({
                "pod": pod.name,
                "namespace": pod.namespace,
                "spiffeId": pod.spiffe_id(),
                "serial": volume.svid.serial_hex(),
                "keyAlgorithm": pod.key_algorithm,
                "expiresIn": rounded(volume.left(now).as_secs_f64()),
                "milliseconds": rounded(took.as_secs_f64() * 1e3),
            });
            let (name, algorithm, ttl) = (pod.name, pod.key_algorithm, pod.ttl);
            let took = millis(took);
            let text = format!("{name:<9} {algorithm:<11} valid for {ttl}, answered in {took}");
            self.show.check("published", &text, fields)?;
            self.breathe().await?;
        }
        let noswap = self.check_mounts()?;
        let swap = if noswap { ", noswap" } else { "; noswap is refused here" };
        let text = format!("each a tmpfs of its own: nosuid, nodev, noexec{swap}");
        self.show.check("mounts", &text, json!({ "noswap": noswap }))?;
        let volumes = self.watch.volumes.iter();
        let keys: BTreeSet<_> = volumes.map(|volume| volume.svid.leaf().spki_der()).collect();
        ensure!(keys.len() == PODS.len(), "two pods have the same key");
        let text = "web-1 and web-2 share a SPIFFE ID, as replicas do; no two share a key";
        self.show.check("keys", text, json!({ "keys": keys.len() }))?;
        self.breathe().await
    }

    /// Whether they never go to swap.
    fn check_mounts(&self) -> Result<bool> {
        let mounts = self.stage.mounts()?;
        let mut noswap = true;
        for volume in &self.watch.volumes {
            let mount = mounts.iter().find(|m| m.mount_point == volume.target);
            let mount = mount.with_context(|| format!("{} has no mount", volume.pod.name))?;
            let options: BTreeSet<_> = mount.options.split(',').collect();
            for option in ["nosuid", "nodev", "noexec"] {
                ensure!(
                    options.contains(option),
                    "the volume of {} is mounted without {option}",
                    volume.pod.name
                );
            }
            noswap &= mount.super_options.split(',').any(|o| o == "noswap");
        }
        Ok(noswap)
    }

    pub(super) async fn verify(&mut self) -> Result<()> {
        self.show.step(
            "OpenSSL verifies every SVID",
            "openssl verify -x509_strict, as server and as client, and the name it reads.",
        )?;
        self.verify_all().await?;
        self.breathe().await
    }

    pub(super) async fn verify_all(&mut self) -> Result<()> {
        for pod in PODS {
            let set = self.watch.get(pod.name)?.set()?;
            let name = pod.name;
            let found = openssl::verify(&set).with_context(|| format!("the SVID of {name}"))?;
            let expected = pod.spiffe_id();
            ensure!(found == expected, "{name} is {found}, not {expected}");
            let text = format!("{name:<9} OK  URI:{found}");
            let fields = json!({ "pod": name, "spiffeId": found });
            self.show.check("verified", &text, fields)?;
            // The table goes on meanwhile.
            self.observe(self.show.pace() / 4, |_| false).await?;
        }
        Ok(())
    }

    pub(super) async fn handshake(&mut self) -> Result<()> {
        self.show.step(
            "Two pods talk mutual TLS",
            "Each shows its SVID and trusts only ca.crt of its own volume.",
        )?;
        let meeting = self.meet().await?;
        let text = format!("ledger-1, the server, knows {}", meeting.client);
        let fields = json!({ "pod": SERVER, "peer": meeting.client });
        self.show.check("peer", &text, fields)?;
        let text = format!("web-1, the client, knows {}", meeting.server);
        let fields = json!({ "pod": CLIENT, "peer": meeting.server });
        self.show.check("peer", &text, fields)?;
        let text = format!("a message went each way, {}", meeting.protocol);
        let fields = json!({ "protocol": meeting.protocol });
        self.show.check("messages", &text, fields)?;

        let server = self.party(SERVER)?;
        let client = self.party(CLIENT)?;
        let forged = self.stage.root().join("forged");
        let forged = openssl::forge(forged, &client.spiffe_id, &client.set.join("ca.crt"))?;
        let reason = handshake::refuse(&server, &forged).await?;
        let text = format!("a forged certificate for web-1's ID is refused: {reason}");
        self.show.check("forgery", &text, json!({ "reason": reason }))?;
        self.breathe().await
    }

    /// A mutual-TLS connection between two of the pods, in which each sees who the other is.
    pub(super) async fn meet(&self) -> Result<Meeting> {
        let (server, client) = (self.party(SERVER)?, self.party(CLIENT)?);
        let meeting = handshake::meet(&server, &client).await?;
        for (found, expected) in
            [(&meeting.client, &client.spiffe_id), (&meeting.server, &server.spiffe_id)]
        {
            ensure!(found == expected, "the peer is {found}, not {expected}");
        }
        Ok(meeting)
    }
}
