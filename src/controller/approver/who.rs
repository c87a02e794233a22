//! Who asks: the driver's pod on a node, as the API server wrote it into the request. The driver
//! itself is not believed.

use super::{Denial, Question, ReasonCode};
use crate::k8s::names::{NODE_UID_LABEL, SIGNER, extra};

/// The pod and the node that the requester's token is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requester<'a> {
    pod_name: &'a str,
    pod_uid: &'a str,
    pub(super) node_name: &'a str,
    node_uid: &'a str,
}

/// Checks everything about who asks.
pub(super) fn check<'a>(question: &Question<'a>) -> Result<Requester<'a>, Denial> {
    let requester = token(question)?;
    driver_pod(question, &requester)?;
    node(question, &requester)?;
    Ok(requester)
}

/// What the request alone tells.
fn token<'a>(question: &Question<'a>) -> Result<Requester<'a>, Denial> {
    let request = question.request;
    if request.signer_name != SIGNER {
        return Err(Denial::new(
            ReasonCode::WrongSigner,
            format!("the request is for signer {}, not for {SIGNER}", request.signer_name),
        ));
    }
    let account = &question.settings.driver_service_account;
    let driver = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
    if request.username != driver {
        return Err(Denial::new(
            ReasonCode::NotTheDriver,
            format!("{} made the request; only {driver} may", request.username),
        ));
    }
    let bound = |key: &'static str| {
        request.extra(key).ok_or_else(|| {
            Denial::new(
                ReasonCode::UnboundToken,
                format!(
                    "the requester's token does not say {key}; it must be bound to the driver's pod, \
                     by Kubernetes 1.30 or later"
                ),
            )
        })
    };
    let requester = Requester {
        node_name: bound(extra::NODE_NAME)?,
        node_uid: bound(extra::NODE_UID)?,
        pod_name: bound(extra::POD_NAME)?,
        pod_uid: bound(extra::POD_UID)?,
    };
    match request.labels.get(NODE_UID_LABEL) {
        Some(label) if label == requester.node_uid => Ok(requester),
        _ => Err(Denial::new(
            ReasonCode::NodeLabelMismatch,
            format!(
                "the label {NODE_UID_LABEL} must be the requester's node, {}",
                requester.node_uid
            ),
        )),
    }
}

fn driver_pod(question: &Question<'_>, requester: &Requester<'_>) -> Result<(), Denial> {
    let account = &question.settings.driver_service_account;
    let name = format!("{}/{}", account.namespace, requester.pod_name);
    let deny = |reason, problem: String| {
        Err(Denial::new(reason, format!("the requester's pod {name} {problem}")))
    };
    let known = question
        .driver_pod
        .filter(|pod| pod.name == requester.pod_name && pod.namespace == account.namespace);
    let Some(pod) = known else {
        return deny(ReasonCode::DriverPodMissing, "does not exist".to_owned());
    };
    if pod.uid != requester.pod_uid {
        let problem = format!("has UID {}, the token is of {}", pod.uid, requester.pod_uid);
        return deny(ReasonCode::DriverPodReplaced, problem);
    }
    if pod.service_account() != account.name {
        let problem = format!("runs as {}, not as {}", pod.service_account(), account.name);
        return deny(ReasonCode::DriverPodServiceAccount, problem);
    }
    if pod.node_name() != requester.node_name {
        let problem =
            format!("is on node {:?}, the token says {}", pod.node_name(), requester.node_name);
        return deny(ReasonCode::DriverPodElsewhere, problem);
    }
    if pod.is_finished() {
        return deny(ReasonCode::DriverPodFinished, format!("has finished ({})", pod.phase));
    }
    Ok(())
}

fn node(question: &Question<'_>, requester: &Requester<'_>) -> Result<(), Denial> {
    let name = requester.node_name;
    let Some(node) = question.driver_node.filter(|node| node.name == name) else {
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
