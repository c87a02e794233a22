//! For pods that node A has no right to.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Attacks,
    Expected::{Denied, Refused},
    field::{Field, PODS},
    request::Request,
    until,
};
use crate::{cluster::name_of, pod::Pod};

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let own = &field.own;
    let mut ask = |name: &str, reasons: &'static [&'static str], request: &Request| -> Result<()> {
        attacks.add(name, Denied(reasons), field.ask(&field.driver, request)?);
        Ok(())
    };
    ask("a pod on node B", &["PodElsewhere"], &Request::honest(field, &field.victim))?;
    ask(
        "a pod that does not exist",
        &["PodMissing"],
        &Request::honest(field, own).with("pod-name", "nobody"),
    )?;
    ask(
        "a pod of another namespace that does not exist",
        &["PodMissing"],
        &Request::honest(field, own).with("pod-namespace", "kube-system"),
    )?;
    ask(
        "a pod under another UID",
        &["PodReplaced"],
        &Request::honest(field, own).with("pod-uid", NOBODY),
    )?;
    ask(
        "own pod's name, the UID of the pod on node B",
        &["PodReplaced"],
        &Request::honest(field, own).with("pod-uid", &field.victim.uid),
    )?;
    ask("no pod at all", &["PodNotNamed"], &Request::honest(field, own).without("pod-uid"))?;
    ask("a pod that has finished", &["PodFinished"], &Request::honest(field, &field.done))?;
    ask("a pod without our volume", &["PodWithoutVolume"], &Request::honest(field, &field.plain))?;
    let driver = field.ground.driver_pod(&field.here)?;
    ask("the driver's own pod", &["PodWithoutVolume"], &Request::honest(field, &driver))?;
    let id = field.victim.spiffe_id();
    let foreign = Request::honest(field, own).csr(|csr| csr.names(&format!("URI:{id}")));
    ask("own pod, the ID of another ServiceAccount", &["IdentityIs"], &foreign)?;
    let id = "spiffe://example.org/svid.dev/controller";
    let reserved = Request::honest(field, own).csr(|csr| csr.names(&format!("URI:{id}")));
    ask("own pod, the controller's ID", &["ReservedId"], &reserved)?;

    // A kubelet may make mirror pods of its static pods, and no others.
    let plain = |name| field.ground.workload(PODS, name).volume(json!({"emptyDir": {}})).object();
    let ours = |name| field.ground.workload(PODS, name).object();
    let denied = Denied(&["MirrorPod"]);
    for (what, expected, pod, mirror, account) in [
        ("a mirror pod that the kubelet made", denied, plain("mirror"), true, ""),
        (
            "… with our volume",
            Refused("can not create pods that reference"),
            ours("with"),
            true,
            "",
        ),
        ("… with node B's ServiceAccount", Refused("Forbidden"), plain("thief"), true, "victim"),
        (
            "a pod of node B's ServiceAccount",
            Refused("only create mirror"),
            ours("of"),
            false,
            "victim",
        ),
    ] {
        let outcome = match made_by_kubelet(field, pod, mirror, account)? {
            Ok(pod) => field.ask(&field.driver, &Request::honest(field, &pod))?,
            Err(refused) => refused,
        };
        attacks.add(what, expected, outcome);
    }
    Ok(())
}

type Made = std::result::Result<Pod, super::Outcome>;

/// A pod on node A that its kubelet makes by itself.
fn made_by_kubelet(field: &Field<'_>, mut pod: Value, mirror: bool, account: &str) -> Result<Made> {
    let name = name_of(&pod).to_owned();
    pod["spec"]["nodeName"] = field.here.as_str().into();
    if !account.is_empty() {
        pod["spec"]["serviceAccountName"] = account.into();
    }
    if mirror {
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "mirror"});
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Node", "name": field.here, "uid": field.here_uid,
            "controller": true,
        }]);
    }
    let path = format!("/api/v1/namespaces/{PODS}/pods");
    let args = ["create", "--raw", &path, "-f", "-"];
    match field.attempt(&field.kubelet, args, &pod.to_string())? {
        super::Outcome::Won(_) => until("the pod that the kubelet made", || {
            let mut pod = field.cluster().pod(PODS, &name)?;
            if pod.service_account.is_empty() {
                pod.service_account = "default".to_owned();
            }
            Ok(Ok(pod))
        }),
        refused => Ok(Err(refused)),
    }
}
