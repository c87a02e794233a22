//! For whom: a pod that runs on the requester's node and uses the driver. A node reaches no further
//! than its pods (DESIGN.md invariant 5).

use super::{DELETED, Denial, Question, ReasonCode, Requester, Uses};
use crate::{
    id::TemplateInput,
    k8s::{NamespaceFacts, NodeFacts, PodFacts, ServiceAccountFacts},
};

/// The pod, and what stands around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) pod: &'a PodFacts,
    pub(super) service_account: &'a ServiceAccountFacts,
    pub(super) namespace: &'a NamespaceFacts,
    pub(super) node: &'a NodeFacts,
}

/// Checks everything about the pod that the request is for.
pub(super) fn check<'a, W>(
    question: &Question<'a, W>,
    requester: &Requester,
) -> Result<Subject<'a>, Denial> {
    let pod = pod(question)?;
    lives(question, requester, pod)?;
    surroundings(question, pod)
}

/// The pod that the request names.
fn pod<'a, W>(question: &Question<'a, W>) -> Result<&'a PodFacts, Denial> {
    let named = question.request.pod.as_ref().map_err(Clone::clone)?;
    let (wanted, uid) = (&named.name, &named.uid);
    let Some(pod) = question.pod.filter(|pod| pod.is_named(wanted)) else {
        return Err(Denial::new(
            ReasonCode::PodMissing,
            format!("the pod {wanted} does not exist"),
        ));
    };
    if pod.uid != *uid {
        return Err(Denial::new(
            ReasonCode::PodReplaced,
            format!("the pod {wanted} has UID {}, the request is for {uid}", pod.uid),
        ));
    }
    Ok(pod)
}

fn lives<W>(
    question: &Question<'_, W>,
    requester: &Requester,
    pod: &PodFacts,
) -> Result<(), Denial> {
    let name = pod.object_name();
    let deny =
        |reason, problem: String| Err(Denial::new(reason, format!("the pod {name} {problem}")));
    let node = &requester.node.name;
    if pod.node_name() != node {
        let problem = format!(
            "is on node {:?}; the request came from {node}, which gets identities of its own pods only",
            pod.node_name(),
        );
        return deny(ReasonCode::PodElsewhere, problem);
    }
    if pod.mirror {
        let problem = "is a mirror pod, which its kubelet made; it gets no identity";
        return deny(ReasonCode::MirrorPod, problem.to_owned());
    }
    match question.request.uses {
        Uses::Volume if !pod.uses_driver(&question.settings.driver_name) => {
            let problem =
                format!("has no inline volume of the driver {}", question.settings.driver_name);
            return deny(ReasonCode::PodWithoutVolume, problem);
        }
        Uses::PodCertificate if !question.settings.projects(pod) => {
            let signer = question.settings.pod_certificate_signer.as_deref().unwrap_or("(none)");
            let problem = format!("projects no podCertificate of the signer {signer}");
            return deny(ReasonCode::PodWithoutProjection, problem);
        }
        Uses::Volume | Uses::PodCertificate => {}
    }
    if pod.is_finished() {
        return deny(ReasonCode::PodFinished, format!("has finished ({})", pod.phase));
    }
    if pod.is_overdue(question.now, DELETED) {
        let problem = "should have been gone for more than a minute";
        return deny(ReasonCode::PodDeleted, problem.to_owned());
    }
    Ok(())
}

fn surroundings<'a, W>(
    question: &Question<'a, W>,
    pod: &'a PodFacts,
) -> Result<Subject<'a>, Denial> {
    let account = pod.service_account();
    let service_account = question
        .service_account
        .filter(|known| known.name == account && known.namespace == pod.namespace)
        .ok_or_else(|| {
            Denial::new(
                ReasonCode::ServiceAccountMissing,
                format!("the pod's ServiceAccount {}/{account} does not exist", pod.namespace),
            )
        })?;
    // A token outlives its ServiceAccount: one that was made anew is another.
    let named = question.request.pod.as_ref().ok();
    let said = named.and_then(|named| named.service_account_name.as_ref());
    if let Some(said) = said.filter(|said| *said != account) {
        return Err(Denial::new(
            ReasonCode::ServiceAccountReplaced,
            format!("the pod runs as {}/{account}, the request is for {said}", pod.namespace),
        ));
    }
    let said = named.and_then(|named| named.service_account_uid.as_ref());
    if let Some(said) = said.filter(|said| **said != service_account.uid) {
        return Err(Denial::new(
            ReasonCode::ServiceAccountReplaced,
            format!(
                "the pod's ServiceAccount {}/{account} has UID {}, the request is for {said}",
                pod.namespace, service_account.uid
            ),
        ));
    }
    let namespace =
        question.namespace.filter(|known| known.name == pod.namespace).ok_or_else(|| {
            Denial::new(
                ReasonCode::NamespaceMissing,
                format!("the pod's namespace {} does not exist", pod.namespace),
            )
        })?;
    let node = question.node.ok_or_else(|| {
        Denial::new(ReasonCode::NodeMissing, "the requester's node does not exist")
    })?;
    Ok(Subject { pod, service_account, namespace, node })
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// What templates may say about it.
    pub(super) fn template_input(&self) -> TemplateInput<'a> {
        TemplateInput {
            namespace: &self.pod.namespace,
            service_account: self.pod.service_account(),
            pod_name: &self.pod.name,
            namespace_labels: &self.namespace.labels,
        }
    }
}
