//! What this driver is to the API server: the driver of one Node.

use std::sync::Arc;

use crate::{
    class::Class,
    k8s::{WhoAmI, names::extra},
    signer::SignError,
};

/// The UID of the Node that our token is bound to, as the API server will say of each request.
/// Without it no controller can tell which pods we may ask for, so there is no use in asking.
pub(super) fn node_uid(me: &WhoAmI, node_name: &str) -> Result<Arc<str>, SignError> {
    let not_ready = |message: String| SignError::new(Class::NotReady, message);
    let (Some(name), Some(uid)) = (me.extra(extra::NODE_NAME), me.extra(extra::NODE_UID)) else {
        return Err(not_ready(format!(
            "the API server does not say which node the token of {} is bound to: a signer in the \
             cluster needs Kubernetes 1.30 or newer and a token bound to the driver's pod",
            me.username
        )));
    };
    if name != node_name {
        return Err(not_ready(format!(
            "--node-name is {node_name}, and the API server says that this pod runs on {name}: \
             set SVID_CSI_NODE_NAME from spec.nodeName"
        )));
    }
    if me.extra(extra::POD_UID).is_none() {
        return Err(not_ready(format!(
            "the token of {} is bound to no pod: let the driver run as a pod with the token that \
             kubelet mounts",
            me.username
        )));
    }
    Ok(uid.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_must_be_bound_to_a_pod_on_this_node() {
        let me = |pairs: &[(&str, &[&str])]| WhoAmI {
            username: "system:serviceaccount:svid-csi:driver".to_owned(),
            extra: pairs
                .iter()
                .map(|(key, values)| {
                    let values = values.iter().map(|value| (*value).to_owned());
                    ((*key).to_owned(), values.collect())
                })
                .collect(),
        };
        let (name, uid) = ((extra::NODE_NAME, &["worker-1"][..]), (extra::NODE_UID, &["n1"][..]));
        let pod = (extra::POD_UID, &["p1"][..]);
        assert_eq!(&*node_uid(&me(&[name, uid, pod]), "worker-1").unwrap(), "n1");
        for (pairs, node, part) in [
            (&[][..], "worker-1", "1.30"),
            (&[name, pod], "worker-1", "1.30"),
            (&[name, (extra::NODE_UID, &["a", "b"]), pod], "worker-1", "1.30"),
            (&[name, uid, pod], "worker-2", "runs on worker-1"),
            (&[name, uid], "worker-1", "bound to no pod"),
        ] {
            let error = node_uid(&me(pairs), node).unwrap_err();
            assert_eq!(error.class(), Class::NotReady);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
