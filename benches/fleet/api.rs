//! The API server: what is many is made as it is asked for, what is written is kept.

use std::{convert::Infallible, future, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    http::Uri,
    response::Response,
    routing::get,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{Fleet, Tokens, tokens::ISSUER};
use crate::api_server::{ApiServer, Store};

/// Objects that a watch tells of at once.
const CHUNK: usize = 100;

/// A server that holds a fleet.
pub struct Api {
    pub server: ApiServer,
}

// === impl Api ===

impl Api {
    /// With a policy for everybody.
    pub async fn start(fleet: &Fleet, tokens: &Tokens) -> Self {
        let (keys, fleet_of_pods) = (tokens.keys(), fleet.clone());
        let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks")});
        let routes: Router<Arc<Store>> = Router::new()
            .route("/api/v1/pods", get(move |uri| pods(fleet_of_pods, uri)))
            .route("/openid/v1/jwks", get(move || future::ready(keys.to_string())))
            .route(
                "/.well-known/openid-configuration",
                get(move || future::ready(discovery.to_string())),
            );
        let server = ApiServer::beside(routes).await;
        let many = [
            ("api/v1/nodes", fleet.nodes()),
            ("api/v1/namespaces", fleet.namespaces()),
            ("api/v1/serviceaccounts", fleet.accounts()),
        ];
        for (collection, objects) in many {
            for object in objects {
                server.store.put_silently(collection, object);
            }
        }
        let api = Self { server };
        api.set_rules(&[]);
        api
    }

    /// The policy for everybody gets these rules.
    pub fn set_rules(&self, rules: &[&str]) {
        let rule = |(n, expression)| json!({"name": format!("rule-{n}"), "expression": expression});
        let rules: Vec<Value> = rules.iter().enumerate().map(rule).collect();
        let generation = rules.len() + 1;
        self.server.store.put(
            "apis/svid.dev/v1alpha1/svidpolicies",
            json!({
                "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
                "metadata": {"name": "default", "uid": "default", "generation": generation},
                "spec": {"rules": rules, "jwt": {"audiences": ["*"]}},
            }),
        );
    }
}

/// A streaming list, as API servers since 1.34 make them, and then nothing more happens.
async fn pods(fleet: Fleet, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    assert!(query.contains("watch=true"), "the controller streams its list of pods");
    let told: Box<dyn Iterator<Item = String> + Send> =
        match query.contains("sendInitialEvents=true") {
            false => Box::new(std::iter::empty()),
            true => Box::new(
                fleet
                    .pods()
                    .map(|pod| format!("{{\"type\":\"ADDED\",\"object\":{pod}}}\n"))
                    .chain([bookmark()]),
            ),
        };
    let chunks = stream::iter(told).chunks(CHUNK);
    let chunks = chunks.map(|lines| Ok::<_, Infallible>(Bytes::from(lines.concat())));
    let silence = stream::once(future::pending::<Result<Bytes, Infallible>>());
    Response::new(Body::from_stream(chunks.chain(silence)))
}

/// The end of the list.
fn bookmark() -> String {
    let end = json!({"k8s.io/initial-events-end": "true"});
    let metadata = json!({"resourceVersion": "1", "annotations": end});
    let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": []}});
    json!({"type": "BOOKMARK", "object": object}).to_string() + "\n"
}
