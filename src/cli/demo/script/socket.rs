//! The Workload API at the sockets in the volumes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{CLIENT, SERVER, Script};
use crate::cli::demo::{
    application::{Application, good},
    show::short,
};

/// Whom the demo's token is for.
const AUDIENCE: &str = "ledger";

// === impl Script ===

impl Script<'_> {
    pub(super) async fn ask_sockets(&mut self) -> Result<()> {
        self.show.step(
            "Applications ask the socket",
            "Beside the files is spiffe.sock, the SPIFFE Workload API. Which socket is asked says who asks.",
        )?;
        let (web, ledger) = (self.application(CLIENT)?, self.application(SERVER)?);
        let web_id = self.watch.get(CLIENT)?.pod.spiffe_id();

        // Once more if it was renewed in between.
        let mut serial = good(&web.fetch(&["x509"])?)?;
        self.observe(Duration::ZERO, |_| true).await?;
        if serial != self.watch.get(CLIENT)?.svid.serial_hex() {
            serial = good(&web.fetch(&["x509"])?)?;
            self.observe(Duration::ZERO, |_| true).await?;
        }
        ensure!(serial == self.watch.get(CLIENT)?.svid.serial_hex(), "web-1 got another SVID");
        let text =
            format!("web-1 fetches its X.509-SVID: serial {}, as in its files", short(&serial));
        self.show.check("fetchedX509", &text, json!({ "serial": serial }))?;

        let said = web.fetch(&["jwt", "--audience", AUDIENCE])?;
        let token = said.pointer("/svids/0/token").and_then(Value::as_str);
        let token = token.context("web-1 got no JWT-SVID")?;
        let verified = said.pointer("/svids/0/verified").and_then(Value::as_bool);
        ensure!(verified == Some(true), "web-1's JWT-SVID does not verify");
        let text = format!("web-1 fetches a JWT-SVID for {AUDIENCE}");
        self.show.check("fetchedJwt", &text, json!({ "audience": AUDIENCE }))?;

        let said = ledger.fetch(&["validate", "--audience", AUDIENCE, token])?;
        let id = said.get("spiffeId").and_then(Value::as_str);
        ensure!(id == Some(web_id.as_str()), "ledger-1 took the token for {id:?}");
        let text = format!("ledger-1 validates it: {web_id}");
        self.show.check("validated", &text, json!({ "spiffeId": web_id }))?;

        let said = ledger.fetch(&["validate", "--audience", "somebody-else", token])?;
        ensure!(
            said.get("valid").and_then(Value::as_bool) == Some(false),
            "a token was taken by whom it is not for"
        );
        let reason = said.get("reason").and_then(Value::as_str).unwrap_or_default();
        let text = format!("by somebody else it is refused: {reason}");
        self.show.check("refused", &text, json!({ "reason": reason }))?;

        let mut stream = web.open_stream()?;
        stream.had(None).await?;
        self.stream = Some(stream);
        let text = "web-1 opens a stream of its SVIDs and keeps it open";
        self.show.check("streamOpened", text, json!({}))?;
        self.breathe().await
    }

    /// The stream outlived the plugin: the same process, and an SVID that is newer than the crash.
    pub(super) async fn stream_went_on(&mut self) -> Result<()> {
        let mut stream = self.stream.take().context("no stream")?;
        let serial = self.watch.get(CLIENT)?.svid.serial_hex().to_owned();
        let messages = stream.had(Some(&serial)).await?;
        let text = format!(
            "web-1's stream went on by itself: serial {}, issued after the crash",
            short(&serial)
        );
        let fields = json!({ "serial": serial, "messages": messages });
        self.show.check("streamWentOn", &text, fields)
    }

    fn application(&self, pod: &str) -> Result<Application> {
        Ok(Application::of(&self.watch.get(pod)?.target))
    }
}
