//! From one signer to another by a helm upgrade, under pods in continuous mutual TLS.

use anyhow::{Context, Result};

use crate::{
    control::STEP,
    ground::Ground,
    load::Load,
    signer::Signer,
    story::{Seen, Story},
};

const NAMESPACE: &str = "e2e-change";
const PODS: usize = 8;
const TTL: &str = "1m";

/// The ground signs so from now on.
pub fn run(ground: &mut Ground, signer: Signer, story: &Story) -> Result<Seen> {
    let from = ground.signer;
    ground.namespace(NAMESPACE)?;
    let install = |ground: &Ground| ground.install_with(signer, &[]);
    let load = Load::with_tokens(ground, NAMESPACE, PODS, TTL)?;
    story.step(&format!("{PODS} pods call each other, with signer {}", from.name()));
    load.until("the upgrade", STEP, || install(ground))?;
    let reloads = load.check()?.reloads;
    load.until("a renewal by the new signer", STEP, || {
        let more = load.check()?.reloads - reloads;
        anyhow::ensure!(more >= 2 * i64::try_from(PODS)?, "{more} sets were taken since");
        Ok(())
    })?;
    load.goes_on().context("after the upgrade")?;
    let seen = load.check()?;
    ground.signer = signer;
    Ok(Seen::new(format!(
        "one upgrade from signer {} to {}, and none of {} handshakes and {} JWT-SVIDs of {PODS} pods \
         failed meanwhile",
        from.name(),
        signer.name(),
        seen.calls,
        seen.tokens
    )))
}
