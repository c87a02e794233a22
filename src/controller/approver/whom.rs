//! For whom: a pod that runs on the requester's node and uses the driver. A node reaches no further
//! than its pods (DESIGN.md invariant 5).

use std::time::Duration;

use super::{Denial, Question, ReasonCode, who::Requester};
use crate::{
    id::TemplateInput,
    k8s::{NamespaceFacts, NodeFacts, PodFacts, ServiceAccountFacts, names::annotation},
};

/// The pod, and what stands around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) pod: &'a PodFacts,
    pub(super) service_account: &'a ServiceAccountFacts,
    pub(super) namespace: &'a NamespaceFacts,
    pub(super) node: &'a NodeFacts,
}

/// How long a pod may outlive its own deletion.
const DELETED: Duration = Duration::from_secs(60);

/// Checks everything about the pod that the request is for.
pub(super) fn check<'a>(
    question: &Question<'a>,
    requester: &Requester<'_>,
) -> Result<Subject<'a>, Denial> {
    let pod = pod(question)?;
    lives(question, requester, pod)?;
    surroundings(question, pod)
}

/// The pod that the annotations name.
fn pod<'a>(question: &Question<'a>) -> Result<&'a PodFacts, Denial> {
    let request = question.request;
    let uid = request.annotations.get(annotation::POD_UID).filter(|uid| !uid.is_empty());
    let (Some(wanted), Some(uid)) = (request.pod(), uid) else {
        return Err(Denial::new(
            ReasonCode::PodNotNamed,
            format!(
                "the annotations {}, {} and {} must name the pod",
                annotation::POD_NAMESPACE,
                annotation::POD_NAME,
                annotation::POD_UID
            ),
        ));
    };
    let Some(pod) = question.pod.filter(|pod| pod.object_name() == wanted) else {
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

fn lives(question: &Question<'_>, requester: &Requester<'_>, pod: &PodFacts) -> Result<(), Denial> {
    let name = pod.object_name();
    let deny =
        |reason, problem: String| Err(Denial::new(reason, format!("the pod {name} {problem}")));
    if pod.node_name() != requester.node_name {
        let problem = format!(
            "is on node {:?}; the request came from {}, which gets identities of its own pods only",
            pod.node_name(),
            requester.node_name
        );
        return deny(ReasonCode::PodElsewhere, problem);
    }
    if pod.mirror {
        let problem = "is a mirror pod, which its kubelet made; it gets no identity";
        return deny(ReasonCode::MirrorPod, problem.to_owned());
    }
    if !pod.uses_driver(&question.settings.driver_name) {
        let problem =
            format!("has no inline volume of the driver {}", question.settings.driver_name);
        return deny(ReasonCode::PodWithoutVolume, problem);
    }
    if pod.is_finished() {
        return deny(ReasonCode::PodFinished, format!("has finished ({})", pod.phase));
    }
    let overdue = pod.deletion_timestamp.and_then(|at| question.now.duration_since(at).ok());
    if overdue.is_some_and(|overdue| overdue > DELETED) {
        let problem = "should have been gone for more than a minute";
        return deny(ReasonCode::PodDeleted, problem.to_owned());
    }
    Ok(())
}

fn surroundings<'a>(question: &Question<'a>, pod: &'a PodFacts) -> Result<Subject<'a>, Denial> {
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
    let namespace =
        question.namespace.filter(|known| known.name == pod.namespace).ok_or_else(|| {
            Denial::new(
                ReasonCode::NamespaceMissing,
                format!("the pod's namespace {} does not exist", pod.namespace),
            )
        })?;
    let node = question.driver_node.ok_or_else(|| {
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
