//! A pod that should have been gone long ago, whose end its node does not report.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Attacks,
    Expected::Denied,
    field::{Field, PODS},
    request::Request,
    until,
};
use crate::patience::now;

/// A pod may outlive its deletion so long.
const ALLOWED: Duration = Duration::from_secs(60);

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    wait(field)?;
    let outcome = field.ask(&field.driver, &Request::honest(field, &field.deleted))?;
    attacks.add("a pod that is long being deleted", Denied(&["PodDeleted"]), outcome);
    Ok(())
}

/// Until it has been deleted for more than a minute.
pub fn wait(field: &Field<'_>) -> Result<()> {
    let pod = field.cluster().get(PODS, "pod", "deleted")?;
    let text = pod["metadata"]["deletionTimestamp"].as_str().context("it is not being deleted")?;
    let deleted = OffsetDateTime::parse(text, &Rfc3339)?;
    until("the pod to be deleted for more than a minute", || {
        let over = OffsetDateTime::from(now()) - deleted;
        ensure!(over > ALLOWED + Duration::from_secs(2), "it has been for {over}");
        Ok(())
    })
}
