//! cert-manager's real controller and webhook sign what our controller approves.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use svid_csi::pki::{Csr, KeyAlgorithm, PrivateKey, TrustBundle};

use crate::{
    control::{Control, REPLICAS},
    ground::{Ground, NAMESPACE, TRUST_DOMAIN},
    issuers::{self, FIRST, SECOND},
    patience::eventually,
    pod::Pod,
    story::{Seen, Story},
    workload::{CONTAINER, MOUNT},
};

const PODS: &str = "e2e-cert-manager";
const POLICY: &str = "e2e-second-issuer";
const LIMIT: Duration = Duration::from_secs(90);
/// Short enough to be renewed while somebody looks.
const TTL: &str = "20s";

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let (first, second) = (issuers::root(ground, FIRST)?, issuers::make(ground, SECOND)?);
    issuers::trust(ground, &[&first, &second])?;
    issuers::choose(ground, FIRST)?;
    ground.namespace(PODS)?;
    let seen = signed(ground, story, &first, &second);
    // Whatever came of it, the next suite finds what it expects.
    issuers::choose(ground, FIRST)?;
    ground.cluster.kubectl(["delete", "svidpolicy", POLICY, "--ignore-not-found"])?;
    seen
}

fn signed(
    ground: &Ground,
    story: &Story,
    first: &TrustBundle,
    second: &TrustBundle,
) -> Result<Seen> {
    let nodes = ground.cluster.nodes()?;
    let pods = nodes.iter().map(|node| {
        ground.workload(PODS, &format!("plain-{node}")).on(node).with("ttl", TTL).object()
    });
    ground.cluster.apply(&pods.collect::<Vec<_>>())?;
    let pods = ground.cluster.ready_pods(PODS, nodes.len(), LIMIT)?;
    for pod in &pods {
        under(pod, first)?;
    }
    renewed(&pods[0])?;
    story.step("pods on every node have SVIDs of the issuer, and they are renewed");
    eventually("requests to be deleted", LIMIT, || {
        let left = ground.cluster.list(NAMESPACE, "certificaterequests", "")?;
        let undecided = left.iter().filter(|it| it["status"]["conditions"].is_null()).count();
        ensure!(left.len() <= 2 && undecided <= 2, "{} are left", left.len());
        Ok(())
    })?;
    assigned(ground)?;
    story.step("another ID and lifetime by policy are asked for and given");
    per_volume(ground, second)?;
    story.step("a pod names another issuer where policy allows it, and nowhere else");
    issuers::choose(ground, SECOND)?;
    eventually("SVIDs of the other issuer", LIMIT, || {
        pods.iter().try_for_each(|pod| under(pod, second))
    })?;
    issuers::choose(ground, FIRST)?;
    eventually("SVIDs of the first again", LIMIT, || {
        pods.iter().try_for_each(|pod| under(pod, first))
    })?;
    story.step("the ConfigMap has another issuer sign, and the first again");
    let refused = attacks(ground, &pods[0])?;
    story.step(&format!("with a driver's token: {refused} attacks refused"));
    let reason = another_approver(ground)?;
    story.step(&format!("while cert-manager may approve: {reason}"));
    for pod in &pods {
        ensure!(pod.lives() == ground.cluster.pod(PODS, &pod.name)?.lives(), "a pod restarted");
    }
    Ok(Seen::new(format!(
        "{} pods renewed under cert-manager's CA issuer, another issuer by ConfigMap and by volume, \
         {refused} attacks with a driver's token refused; not ready while cert-manager may approve",
        pods.len()
    )))
}

/// The pod's set holds, and its SVID is this root's.
fn under(pod: &Pod, root: &TrustBundle) -> Result<()> {
    let set = pod.set(CONTAINER, MOUNT)?;
    set.check(&pod.spiffe_id())?;
    set.svid.verify_chain(root, set.svid.not_before()).context("it is another issuer's")
}

fn renewed(pod: &Pod) -> Result<()> {
    let serial = || Ok::<_, anyhow::Error>(pod.set(CONTAINER, MOUNT)?.serial().to_owned());
    let before = serial()?;
    eventually("a renewal", LIMIT, || {
        ensure!(serial()? != before, "it is still {before}");
        Ok(())
    })
}

/// What policy gives stands in the request itself.
fn assigned(ground: &Ground) -> Result<()> {
    ground.cluster.apply(&[
        json!({
            "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy", "metadata": {"name": POLICY},
            "spec": {
                "priority": 1000,
                "selector": {"pods": {"matchLabels": {"app": "assigned"}}},
                "id": "/assigned/{pod-name}",
                "x509": {"defaultTTL": "17m", "keyAlgorithms": ["ecdsa-p384"]},
                "dnsNames": ["{pod-name}.example"],
            },
        }),
        ground.workload(PODS, "assigned").with("dns-names", "{pod-name}.example").object(),
    ])?;
    eventually("what policy assigns", LIMIT, || {
        let pod = ground.cluster.pod(PODS, "assigned")?;
        ensure!(pod.is_ready(), "it is {}", pod.state());
        let set = pod.set(CONTAINER, MOUNT)?;
        set.check(&format!("spiffe://{TRUST_DOMAIN}/assigned/assigned"))?;
        let leaf = set.svid.leaf();
        ensure!(leaf.dns_sans() == ["assigned.example"], "names: {:?}", leaf.dns_sans());
        let life = leaf.not_after().duration_since(leaf.not_before())?;
        ensure!(life == Duration::from_secs(17 * 60), "it lives {life:?}");
        Ok(())
    })?;
    ground.cluster.kubectl(["delete", "pod", "assigned", "-n", PODS])?;
    ground.cluster.kubectl(["delete", "svidpolicy", POLICY]).map(drop)
}

fn per_volume(ground: &Ground, second: &TrustBundle) -> Result<()> {
    let pod = |name: &str| ground.workload(PODS, name).with("issuer-name", SECOND).object();
    ground.cluster.apply(&[pod("chooses")])?;
    let wanted = ["IssuerNotAllowed", SECOND];
    eventually("an Event that says which issuers are allowed", LIMIT, || {
        let events = ground.cluster.events(PODS, "chooses")?;
        let said = events.iter().any(|event| wanted.iter().all(|words| event.contains(words)));
        ensure!(said, "its Events are {events:?}");
        Ok(())
    })?;
    ground.cluster.apply(&[json!({
        "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy", "metadata": {"name": POLICY},
        "spec": {
            "priority": 1000,
            "selector": {"pods": {"matchLabels": {"app": "chooses"}}},
            "issuers": [format!("ClusterIssuer/{SECOND}")],
        },
    })])?;
    eventually("an SVID of the issuer that the pod names", LIMIT, || {
        let pod = ground.cluster.pod(PODS, "chooses")?;
        ensure!(pod.is_ready(), "it is {}", pod.state());
        under(&pod, second)
    })?;
    ground.cluster.kubectl(["delete", "pod", "chooses", "-n", PODS]).map(drop)
}

/// What a driver's token is good for beside what the driver does: nothing.
fn attacks(ground: &Ground, victim: &Pod) -> Result<usize> {
    let nodes = ground.cluster.nodes()?;
    let here = nodes.iter().find(|node| **node != victim.node).unwrap_or(&nodes[0]);
    let driver = ground.driver_pod(here)?;
    let object = ground.cluster.get(NAMESPACE, "pod", &driver.name)?;
    let uid = object["metadata"]["uid"].as_str().context("uid")?;
    let account = object["spec"]["serviceAccountName"].as_str().context("account")?;
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", &driver.name];
    let token = ["create", "token", account, "-n", NAMESPACE, "--bound-object-uid", uid];
    let token = ground.cluster.kubectl(token.into_iter().chain(bound))?;
    let node = ground.cluster.get("", "node", here)?;
    let honest = request(victim, node["metadata"]["uid"].as_str().context("uid")?, FIRST)?;
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut request = honest.clone();
        change(&mut request);
        request
    };
    let attacks: [(&str, Value, &str); 6] = [
        (
            "another issuer",
            changed(&|it| it["spec"]["issuerRef"]["name"] = "somebody-elses".into()),
            "may not ask the issuer",
        ),
        (
            "another namespace",
            changed(&|it| it["metadata"]["namespace"] = PODS.into()),
            "cannot create resource",
        ),
        ("a CA", changed(&|it| it["spec"]["isCA"] = true.into()), "no CA"),
        (
            "another node's label",
            changed(&|it| it["metadata"]["labels"]["csi.svid.dev/node-uid"] = "x".into()),
            "must be the UID of the node",
        ),
        (
            "an annotation that an issuer reads",
            changed(&|it| {
                it["metadata"]["annotations"]["cert-manager.io/private-key-secret-name"] =
                    "x".into();
            }),
            "no others",
        ),
        (
            "a finalizer",
            changed(&|it| it["metadata"]["finalizers"] = json!(["example.org/mine"])),
            "no finalizers",
        ),
    ];
    let create = |request: &Value| {
        let args = ["create", "-f", "-", "--token", token.trim(), "-o", "json"];
        // The administrator's certificate would win over the token.
        let anonymous = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify"];
        let server = ["--server=https://10.88.0.1:6443"];
        let args = args.into_iter().chain(anonymous).chain(server);
        ground.cluster.kubectl_run(args).input(request.to_string()).text()
    };
    for (what, request, words) in &attacks {
        match create(request) {
            Ok(_) => bail!("{what} was accepted"),
            Err(error) => ensure!(format!("{error:#}").contains(words), "{what}: {error:#}"),
        }
    }
    // A forged requester is overwritten, and the victim is not on the attacker's node.
    let forged = changed(&|it| {
        it["spec"]["username"] = "system:serviceaccount:svid-csi:forged".into();
        it["spec"]["extra"] = json!({"authentication.kubernetes.io/node-name": [victim.node]});
    });
    let made: Value = serde_json::from_str(&create(&forged)?)?;
    let who = made["spec"]["username"].as_str().unwrap_or_default();
    ensure!(who.ends_with(account), "the webhook left the username {who}");
    let told = &made["spec"]["extra"]["authentication.kubernetes.io/node-name"];
    ensure!(*told == json!([here]), "the webhook left the node {told}");
    let name = made["metadata"]["name"].as_str().context("name")?.to_owned();
    if nodes.len() > 1 {
        eventually("the request for a pod elsewhere to be denied", LIMIT, || {
            let request = ground.cluster.get(NAMESPACE, "certificaterequest", &name)?;
            let all = request["status"]["conditions"].as_array().into_iter().flatten();
            let denied = all.clone().find(|it| it["type"] == "Denied");
            let reason = denied.context("not denied yet")?["reason"].clone();
            ensure!(reason == "PodElsewhere", "it was denied for {reason}");
            ensure!(request["status"]["certificate"].is_null(), "it was signed");
            Ok(())
        })?;
    }
    Ok(attacks.len() + 2)
}

/// A request for this pod as its driver would make it.
fn request(victim: &Pod, node_uid: &str, issuer: &str) -> Result<Value> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let csr = Csr::create(&key, &victim.spiffe_id().parse()?)?;
    let pem = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, csr.to_pem());
    let uid = victim.directory();
    let uid = uid.file_name().and_then(|name| name.to_str()).context("the pod's UID")?;
    Ok(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
        "metadata": {
            "generateName": "svid-attack-", "namespace": NAMESPACE,
            "labels": {"csi.svid.dev/node-uid": node_uid},
            "annotations": {
                "csi.svid.dev/pod-namespace": PODS, "csi.svid.dev/pod-name": victim.name,
                "csi.svid.dev/pod-uid": uid,
            },
        },
        "spec": {
            "request": pem, "duration": "1h", "isCA": false,
            "usages": ["digital signature", "server auth", "client auth"],
            "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": issuer},
        },
    }))
}

/// cert-manager's own approver with its usual rights: our controller says why it is not ready.
fn another_approver(ground: &Ground) -> Result<String> {
    let name = "e2e-cert-manager-approves";
    ground.cluster.apply(&[
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{
                "apiGroups": ["cert-manager.io"], "resources": ["signers"], "verbs": ["approve"],
                "resourceNames": ["issuers.cert-manager.io/*", "clusterissuers.cert-manager.io/*"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "cert-manager", "namespace": "cert-manager"}],
        }),
    ])?;
    let said = eventually("no controller to be ready", LIMIT, || {
        let pods = Control::of(ground).pods()?;
        ensure!(pods.iter().all(|pod| !pod.is_ready()), "one is ready");
        let log = ground.cluster.logs(NAMESPACE, &pods[0].name, &pods[0].container()?.name)?;
        let line = log.lines().rfind(|line| line.contains("disableAutoApproval"));
        Ok(line.context("its log does not say why")?.to_owned())
    });
    ground.cluster.kubectl(["delete", "clusterrole,clusterrolebinding", name])?;
    let said = said?;
    Control::of(ground).settled(REPLICAS)?;
    let reason = said.split("problem=").last().unwrap_or_default();
    Ok(reason.chars().take(120).collect())
}
