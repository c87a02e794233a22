//! With other credentials than a driver's token that is bound to its pod on its node.

use anyhow::Result;
use serde_json::json;

use super::{
    Attacks,
    Expected::{Denied, Refused},
    field::{DRIVER_ACCOUNT, Field, PODS},
    request::Request,
    until,
};
use crate::ground::NAMESPACE;

/// A node that is only an object.
const GONE: &str = "e2e-attack-gone";
const FENCE: &str = "csi.svid.dev/node-uid must be the UID of the node";

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let honest = || Request::honest(field, &field.own);
    let loose = field.token("loose", &field.driver_token(&[])?)?;
    let outcome = field.ask(&loose, &honest())?;
    attacks.add("a driver's token that is bound to no pod", Refused(FENCE), outcome);

    let node = ["--bound-object-kind=Node", "--bound-object-name", &field.here];
    let node = field.token("node", &field.driver_token(&node)?)?;
    let outcome = field.ask(&node, &honest())?;
    attacks.add(
        "a driver's token that is bound to the node only",
        Denied(&["UnboundToken"]),
        outcome,
    );

    let outcome = field.ask(&field.kubelet, &honest())?;
    attacks.add("the kubelet's certificate", Refused("only system:serviceaccount"), outcome);

    another_pod_of_ours(field, attacks)?;
    a_node_that_is_gone(field, attacks)?;
    of_others(field, attacks)
}

/// The driver's ServiceAccount in a pod that is on node A, but is not the driver.
fn another_pod_of_ours(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let pod = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{DRIVER_ACCOUNT}/token");
    let victim = field.ground.driver_pod(&field.there)?;
    let wish = |name: &str, uid: &str| {
        json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": [],
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid},
            },
        })
        .to_string()
    };
    let args = ["create", "--raw", &pod, "-f", "-"];
    let outcome = field.attempt(&field.kubelet, args, &wish(&victim.name, &victim.uid))?;
    let what = "the kubelet asks for the token of node B's driver";
    attacks.add(what, Refused("Forbidden"), outcome);
    let outcome = field.attempt(&field.driver, args, &wish(&victim.name, &victim.uid))?;
    attacks.add("the driver asks for that token", Refused("Forbidden"), outcome);
    let account = format!("/api/v1/namespaces/{PODS}/serviceaccounts/victim/token");
    let args = ["create", "--raw", &account, "-f", "-"];
    let outcome =
        field.attempt(&field.kubelet, args, &wish(&field.victim.name, &field.victim.uid))?;
    attacks.add("the kubelet asks for the token of a pod on node B", Refused("Forbidden"), outcome);
    Ok(())
}

/// Its token outlives the Node.
fn a_node_that_is_gone(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let cluster = field.cluster();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": GONE}});
    let mut pod = field.ground.workload(NAMESPACE, GONE).volume(json!({"emptyDir": {}})).object();
    pod["spec"]["serviceAccountName"] = DRIVER_ACCOUNT.into();
    pod["spec"]["nodeName"] = GONE.into();
    pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    cluster.apply(&[node.clone(), pod])?;
    let uid = || -> Result<String> {
        Ok(cluster.get("", "node", GONE)?["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    };
    let old = uid()?;
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", GONE];
    let token = field.token("gone", &field.driver_token(&bound)?)?;
    let request = || Request::honest(field, &field.own).labelled(&old);

    cluster.kubectl(["delete", "node", GONE])?;
    until("the Node to be gone", || match uid() {
        Ok(_) => anyhow::bail!("it is there"),
        Err(_) => Ok(()),
    })?;
    let outcome = field.ask(&token, &request())?;
    // Its pod may be collected already, and with it the token.
    let gone = Denied(&["NodeMissing", "DriverPodMissing"]);
    attacks.add("a driver's token of a Node that is gone", gone, outcome);

    cluster.apply(&[node])?;
    let outcome = field.ask(&token, &request())?;
    attacks.add("… of a Node that came back with another UID", Denied(&["NodeReplaced"]), outcome);
    let args = ["-n", NAMESPACE, "delete", "pod", GONE, "--grace-period=0", "--force"];
    cluster.kubectl(args.into_iter().chain(["--ignore-not-found"]))?;
    cluster.kubectl(["delete", "node", GONE])?;
    Ok(())
}

/// The token of a pod of the node, with the right of everybody who may make requests.
fn of_others(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let cluster = field.cluster();
    let args = ["-n", PODS, "create", "token", "default", "--bound-object-kind=Pod"];
    let bound = ["--bound-object-name", "own"];
    let token = cluster.kubectl(args.into_iter().chain(bound))?;
    let pod = field.token("pod", &token)?;
    let outcome = field.ask(&pod, &Request::honest(field, &field.own))?;
    attacks.add("a pod's own token", Refused("Forbidden"), outcome);
    let role = "e2e-attack-requests";
    let subject = format!("--serviceaccount={PODS}:default");
    let verb = ["--verb=create", "--resource=certificatesigningrequests.certificates.k8s.io"];
    cluster.kubectl(["create", "clusterrole", role].into_iter().chain(verb))?;
    let binding = ["create", "clusterrolebinding", role, "--clusterrole", role, &subject];
    cluster.kubectl(binding)?;
    let outcome = until("the right to make requests", || {
        let outcome = field.ask(&pod, &Request::honest(field, &field.own))?;
        let early =
            matches!(&outcome, super::Outcome::Refused(said) if said.contains("cannot create"));
        anyhow::ensure!(!early, "it is not there yet");
        Ok(outcome)
    });
    cluster.kubectl(["delete", "clusterrolebinding,clusterrole", role])?;
    let what = "a pod's own token that may make requests";
    attacks.add(what, Refused("only system:serviceaccount"), outcome?);
    Ok(())
}
