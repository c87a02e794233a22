//! The controller asked directly, by an independent gRPC client with real tokens of the API server.

mod proof;
mod tokens;
mod what;
mod whom;

use std::{cell::Cell, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use serde_json::{Value, json};

use super::{
    Attacks, Outcome,
    csr::Csr,
    field::{Credentials, Field, PODS},
    time,
};
use crate::{
    command::Run,
    control::Control,
    ground::{NAMESPACE, repository},
    pod::Pod,
};

use self::tokens::AUDIENCE;

const PORT: u16 = 9443;
/// Where the driver's own token for the controller lies in its pod.
const TOKEN: &str = "var/run/secrets/svid.dev/token";

/// Node A's means to ask directly.
struct Direct<'a> {
    field: &'a Field<'a>,
    grpcurl: PathBuf,
    /// A replica's.
    address: String,
    /// The driver's own token on node A, and that of the pod there.
    driver: String,
    own: String,
    calls: Cell<u32>,
}

/// A call as the driver makes it, to be bent.
#[derive(Clone)]
struct Call {
    method: &'static str,
    /// In the header `authorization`, if any.
    driver: Option<String>,
    message: Value,
}

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let direct = Direct::of(field)?;
    direct.honest().context("before the attacks")?;
    proof::try_all(&direct, attacks)?;
    whom::try_all(&direct, attacks)?;
    what::try_all(&direct, attacks)?;
    direct.honest().context("after the attacks")
}

/// A pod that is long being deleted.
pub fn try_deleted(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    time::wait(field)?;
    let direct = Direct::of(field)?;
    let token = direct.token(PODS, "default", Some(&field.deleted), &[AUDIENCE])?;
    let call = direct.x509(&field.deleted, &token)?;
    let outcome = direct.ask(&call)?;
    attacks.add(
        "direct: a pod that is long being deleted",
        super::Expected::Denied(&["PodDeleted"]),
        outcome,
    );
    Ok(())
}

// === impl Direct ===

impl<'a> Direct<'a> {
    fn of(field: &'a Field<'a>) -> Result<Self> {
        let script = repository().join("tests/clients/build").display().to_string();
        let built =
            Run::new(&script, ["grpcurl"]).limit(std::time::Duration::from_mins(5)).text()?;
        let replicas = Control::of(field.ground).pods()?;
        let replica = replicas.first().context("there is no controller")?;
        let pod = field.cluster().get(NAMESPACE, "pod", &replica.name)?;
        let address = pod["status"]["podIP"].as_str().context("it has no address")?;
        let driver = field.ground.driver_pod(&field.here)?;
        let path = driver.root(&driver.container()?.name)?.join(TOKEN);
        let mut direct = Self {
            field,
            grpcurl: PathBuf::from(built.trim()).join("grpcurl"),
            address: format!("{address}:{PORT}"),
            driver: std::fs::read_to_string(path).context("the driver's token")?.trim().to_owned(),
            own: String::new(),
            calls: Cell::default(),
        };
        // As its kubelet gets it.
        direct.own = direct.token_as(
            Some(&field.kubelet),
            PODS,
            &field.own.service_account,
            Some(&field.own),
            &[AUDIENCE],
        )?;
        Ok(direct)
    }

    /// Both kinds of SVID for the pod of that node: else all that follows would prove nothing.
    fn honest(&self) -> Result<()> {
        for call in [self.x509(&self.field.own, &self.own)?, self.jwt(&self.field.own, &self.own)] {
            match self.ask(&call)? {
                Outcome::Won(_) => {}
                outcome => bail!("an honest {} is {}", call.method, outcome.seen()),
            }
        }
        Ok(())
    }

    /// What the driver on node A asks for a pod whose token it has.
    fn x509(&self, pod: &Pod, token: &str) -> Result<Call> {
        self.certified(pod, token, &Csr::of(&pod.spiffe_id()))
    }

    fn certified(&self, pod: &Pod, token: &str, csr: &Csr) -> Result<Call> {
        let pem = csr.pem(self.field.scratch())?;
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let mut message = self.message(pod, token);
        message["csr"] = der.into();
        Ok(Call { method: "IssueX509Svid", driver: Some(self.driver.clone()), message })
    }

    fn jwt(&self, pod: &Pod, token: &str) -> Call {
        let mut message = self.message(pod, token);
        message["spiffeId"] = pod.spiffe_id().into();
        message["audience"] = json!(["example"]);
        Call { method: "IssueJwtSvid", driver: Some(self.driver.clone()), message }
    }

    fn message(&self, pod: &Pod, token: &str) -> Value {
        self.calls.set(self.calls.get() + 1);
        json!({
            "podToken": token,
            "pod": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
            // By which its line is found in the audit stream.
            "volumeId": format!("e2e-attack-{}-{}", std::process::id(), self.calls.get()),
        })
    }

    fn ask(&self, call: &Call) -> Result<Outcome> {
        let program = self.grpcurl.display().to_string();
        let protos = repository().join("proto/proto").display().to_string();
        let method = format!("svid.issuer.v1.Issuer/{}", call.method);
        let header = call.driver.as_ref().map(|token| format!("authorization: Bearer {token}"));
        // Whoever attacks does not care who answers.
        let mut args = vec!["run", &program, "-insecure", "-max-time", "20"];
        args.extend(["-import-path", &protos, "-proto", "issuer.proto"]);
        args.extend(header.iter().flat_map(|header| ["-H", header]));
        args.extend(["-d", "@", &self.address, &method]);
        let done = self.field.cluster().script(args).input(call.message.to_string()).done()?;
        let volume = call.message["volumeId"].as_str().unwrap_or_default();
        if !done.status.success() {
            let said = done.stderr.trim();
            ensure!(said.contains("Code: "), "no answer of gRPC but: {said}");
            let code = said.split("Code: ").nth(1).and_then(|rest| rest.lines().next());
            let message = said.split("Message: ").nth(1).unwrap_or_default();
            let transient = matches!(code, Some("Unavailable" | "DeadlineExceeded"));
            ensure!(!transient, "{}: {said}", call.method);
            return Ok(Outcome::Refused(format!("{}: {message}", code.unwrap_or_default())));
        }
        let answer: Value = serde_json::from_str(&done.stdout).context("grpcurl's answer")?;
        if let Some(denied) = answer.get("denied") {
            let text = |key: &str| denied[key].as_str().unwrap_or_default().to_owned();
            let (reason, message) = (text("reason"), text("message"));
            return Ok(Outcome::Denied { uid: volume.to_owned(), reason, message });
        }
        let issued = answer.get("issued").context("neither issued nor denied")?;
        let shown = issued["certificates"][0].as_str().or_else(|| issued["token"].as_str());
        let shown = shown.with_context(|| format!("nothing is issued: {issued}"))?;
        if call.method == "IssueX509Svid" {
            STANDARD.decode(shown).context("the certificate")?;
        }
        Ok(Outcome::Won(shown.chars().take(40).collect()))
    }
}

// === impl Call ===

impl Call {
    /// With another token in the driver's place.
    fn driven_by(mut self, token: &str) -> Self {
        self.driver = Some(token.to_owned());
        self
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.message[field] = value.into();
        self
    }
}
