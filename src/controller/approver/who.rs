//! Who asks: the driver's pod on a node, or a node's kubelet. The driver itself is not believed.

use super::{DELETED, Denial, NamedPod, Question, ReasonCode, Requester};

/// Checks everything about who asks.
pub(super) fn check<'a, W>(question: &Question<'a, W>) -> Result<&'a Requester, Denial> {
    let requester = question.request.requester.as_ref().map_err(Clone::clone)?;
    if let Some(pod) = &requester.driver_pod {
        driver_pod(question, requester, pod)?;
        service_account(question, pod)?;
    }
    node(question, requester)?;
    Ok(requester)
}

fn driver_pod<W>(
    question: &Question<'_, W>,
    requester: &Requester,
    named: &NamedPod,
) -> Result<(), Denial> {
    let account = &question.settings.driver_service_account;
    let deny = |reason, problem: String| {
        Err(Denial::new(reason, format!("the requester's pod {} {problem}", named.name)))
    };
    let Some(pod) = question.driver_pod.filter(|pod| pod.object_name() == named.name) else {
        return deny(ReasonCode::DriverPodMissing, "does not exist".to_owned());
    };
    if pod.uid != named.uid {
        let problem = format!("has UID {}, the token is of {}", pod.uid, named.uid);
        return deny(ReasonCode::DriverPodReplaced, problem);
    }
    if pod.service_account() != account.name || pod.namespace != account.namespace {
        let problem = format!("runs as {}, not as {account}", pod.service_account());
        return deny(ReasonCode::DriverPodServiceAccount, problem);
    }
    if pod.node_name() != requester.node.name {
        let problem =
            format!("is on node {:?}, the token says {}", pod.node_name(), requester.node.name);
        return deny(ReasonCode::DriverPodElsewhere, problem);
    }
    if pod.is_finished() {
        return deny(ReasonCode::DriverPodFinished, format!("has finished ({})", pod.phase));
    }
    if pod.is_overdue(question.now, DELETED) {
        let problem = "should have been gone for more than a minute";
        return deny(ReasonCode::DriverPodDeleted, problem.to_owned());
    }
    Ok(())
}

/// A token outlives its ServiceAccount: one that was made anew is another.
fn service_account<W>(question: &Question<'_, W>, named: &NamedPod) -> Result<(), Denial> {
    let Some(uid) = &named.service_account_uid else { return Ok(()) };
    let account = &question.settings.driver_service_account;
    let known = question
        .driver_service_account
        .filter(|known| known.name == account.name && known.namespace == account.namespace);
    match known {
        Some(known) if known.uid == *uid => Ok(()),
        known => Err(Denial::new(
            ReasonCode::DriverServiceAccountReplaced,
            format!(
                "the requester's token is of a ServiceAccount {account} with UID {uid}; {}",
                match known {
                    Some(known) => format!("now it has UID {}", known.uid),
                    None => "there is none now".to_owned(),
                }
            ),
        )),
    }
}

fn node<W>(question: &Question<'_, W>, requester: &Requester) -> Result<(), Denial> {
    let name = &requester.node.name;
    let Some(node) = question.node.filter(|node| node.name == *name) else {
        return Err(Denial::new(
            ReasonCode::NodeMissing,
            format!("the requester's node {name} does not exist"),
        ));
    };
    if node.uid != requester.node_uid {
        return Err(Denial::new(
            ReasonCode::NodeReplaced,
            format!(
                "the requester's node {name} has UID {}, the token is of {}",
                node.uid, requester.node_uid
            ),
        ));
    }
    Ok(())
}
