//! gRPC server reflection, by which tools find out what is served (Workload Endpoint §7).

use svid_csi_proto::workload::DESCRIPTORS;
use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

use super::limits::MAX_MESSAGE;

/// Adds reflection, v1 and the older v1alpha. Both tell of the same services.
pub(super) fn add(routes: &mut RoutesBuilder) -> Result<(), Error> {
    routes.add_service(builder().build_v1()?.max_decoding_message_size(MAX_MESSAGE));
    routes.add_service(builder().build_v1alpha()?.max_decoding_message_size(MAX_MESSAGE));
    Ok(())
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .include_reflection_service(false)
}
