//! The JWT-SVID profile (Workload API §6).

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::Map;
use svid_csi_proto::workload::{
    JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use tonic::Status;

use super::{bundles::BundleEncoder, entitlement::Entitlement, status};
use crate::{
    id::{IdError, SpiffeId},
    node::Workload,
};

/// The pod's one JWT-SVID for these audiences.
pub(super) async fn svids(
    workload: &Workload,
    request: JwtsvidRequest,
) -> Result<JwtsvidResponse, Status> {
    let JwtsvidRequest { audience, spiffe_id } = request;
    let id: Option<SpiffeId> = match spiffe_id.as_str() {
        "" => None,
        text => {
            workload.serves_jwt().map_err(status::of)?;
            let invalid = |error: IdError| Status::invalid_argument(format!("spiffe_id: {error}"));
            Some(text.parse().map_err(invalid)?)
        }
    };
    let svid = workload.jwt_svid(audience, id).await.map_err(status::of)?;
    let svid = Jwtsvid {
        spiffe_id: svid.id().to_string(),
        svid: svid.token().to_owned(),
        hint: String::new(),
    };
    Ok(JwtsvidResponse { svids: vec![svid] })
}

/// Everybody's JWT keys.
pub(super) fn bundles(
    entitlement: &Entitlement,
    encoder: &BundleEncoder,
) -> Result<JwtBundlesResponse, Status> {
    let encoded = encoder.encode(entitlement.bundles()?);
    // A set without keys would say that every token is revoked (invariant 6).
    let unknown = || Status::unavailable("the trust bundle has no JWT key yet");
    let bundles = encoded.jwt().ok_or_else(unknown)?.clone();
    Ok(JwtBundlesResponse { bundles })
}

/// Whose token it is, and what it says.
pub(super) fn validate(
    workload: &Workload,
    request: &ValidateJwtsvidRequest,
) -> Result<ValidateJwtsvidResponse, Status> {
    let verified = workload.validate_jwt(&request.audience, &request.svid).map_err(status::of)?;
    let (spiffe_id, claims) = (verified.id.to_string(), Some(structure(&verified.claims)));
    Ok(ValidateJwtsvidResponse { spiffe_id, claims })
}

fn structure(map: &Map<String, serde_json::Value>) -> Struct {
    let fields = map.iter().map(|(name, json)| (name.clone(), value(json)));
    Struct { fields: fields.collect::<BTreeMap<_, _>>() }
}

fn value(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(flag) => Kind::BoolValue(*flag),
        // A `Struct` has no other numbers than JavaScript's.
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.iter().map(value).collect() })
        }
        serde_json::Value::Object(map) => Kind::StructValue(structure(map)),
    };
    Value { kind: Some(kind) }
}
