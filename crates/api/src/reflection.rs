//! grpc.reflection.v1alpha: lets grpcurl and the like list services and read their descriptors, which are those of `proto/`.

use std::sync::Arc;

use futures::{SinkExt, TryStreamExt};
use grpcio::{DuplexSink, MethodType, RequestStream, RpcContext, RpcStatusCode, ServiceBuilder, WriteFlags};
use protobuf::descriptor::{FileDescriptorProto, FileDescriptorSet};
use protobuf::Message;
use raftgrid_proto::v1::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionRequest_oneof_message_request as Asked, ServerReflectionResponse,
    ServerReflectionResponse_oneof_message_response as Answered, ServiceResponse,
};
use raftgrid_rpc::methods::at;

const PATH: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// The service. Its descriptors are built in; ones that do not decode leave it without any.
pub(crate) fn service() -> grpcio::Service {
    let files = FileDescriptorSet::parse_from_bytes(raftgrid_proto::DESCRIPTORS).unwrap_or_default();
    let files: Arc<Vec<FileDescriptorProto>> = Arc::new(files.file.into_vec());
    let method = at::<ServerReflectionRequest, ServerReflectionResponse>(MethodType::Duplex, PATH);
    let handler = move |ctx: RpcContext<'_>,
                        mut requests: RequestStream<ServerReflectionRequest>,
                        mut sink: DuplexSink<ServerReflectionResponse>| {
        let files = files.clone();
        ctx.spawn(async move {
            while let Ok(Some(request)) = requests.try_next().await {
                if sink.send((answer(&files, request), WriteFlags::default())).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        });
    };
    ServiceBuilder::new().add_duplex_streaming_handler(&method, handler).build()
}

fn answer(files: &[FileDescriptorProto], request: ServerReflectionRequest) -> ServerReflectionResponse {
    let answered = match &request.message_request {
        Some(Asked::list_services(_)) => Answered::list_services_response(services(files)),
        Some(Asked::file_by_filename(name)) => {
            with_imports(files, files.iter().find(|file| file.get_name() == name.as_str()))
        }
        Some(Asked::file_containing_symbol(symbol)) => {
            with_imports(files, files.iter().find(|file| declares(file, symbol)))
        }
        Some(Asked::file_containing_extension(_)) | Some(Asked::all_extension_numbers_of_type(_)) | None => {
            failure(RpcStatusCode::NOT_FOUND, "there are no extensions")
        }
    };
    ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request).into(),
        message_response: Some(answered),
        ..ServerReflectionResponse::default()
    }
}

fn failure(code: RpcStatusCode, message: &str) -> Answered {
    let mut error = ErrorResponse::new();
    error.set_error_code(code.into());
    error.set_error_message(message.to_owned());
    Answered::error_response(error)
}

fn full_name(file: &FileDescriptorProto, name: &str) -> String {
    match file.get_package() {
        "" => name.to_owned(),
        package => format!("{package}.{name}"),
    }
}

fn services(files: &[FileDescriptorProto]) -> ListServiceResponse {
    let names = files.iter().flat_map(|file| file.get_service().iter().map(|one| full_name(file, one.get_name())));
    let mut list = ListServiceResponse::new();
    list.set_service(names.map(|name| ServiceResponse { name, ..ServiceResponse::default() }).collect());
    list
}

/// A service, a method of it, a message or an enum.
fn declares(file: &FileDescriptorProto, symbol: &str) -> bool {
    let services = file.get_service().iter().any(|service| {
        let name = full_name(file, service.get_name());
        symbol == name || service.get_method().iter().any(|method| symbol == format!("{name}.{}", method.get_name()))
    });
    let messages = file.get_message_type().iter().map(|message| message.get_name());
    let enums = file.get_enum_type().iter().map(|one| one.get_name());
    services || messages.chain(enums).any(|name| symbol == full_name(file, name))
}

/// The file first, then everything it imports.
fn with_imports(files: &[FileDescriptorProto], found: Option<&FileDescriptorProto>) -> Answered {
    let Some(found) = found else { return failure(RpcStatusCode::NOT_FOUND, "not declared here") };
    let mut wanted = vec![found];
    let mut next = 0;
    while let Some(file) = wanted.get(next).copied() {
        next += 1;
        for name in file.get_dependency() {
            let import = files.iter().find(|other| other.get_name() == name.as_str());
            wanted.extend(import.filter(|import| !wanted.iter().any(|have| have.get_name() == import.get_name())));
        }
    }
    let encoded: Result<Vec<Vec<u8>>, _> = wanted.iter().map(|file| file.write_to_bytes()).collect();
    match encoded {
        Ok(encoded) => {
            let mut response = FileDescriptorResponse::new();
            response.set_file_descriptor_proto(encoded.into());
            Answered::file_descriptor_response(response)
        }
        Err(error) => failure(RpcStatusCode::INTERNAL, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_all_packages_are_listed_and_a_symbol_brings_its_imports() {
        let files = FileDescriptorSet::parse_from_bytes(raftgrid_proto::DESCRIPTORS).expect("built in");
        let files = files.file.into_vec();
        let names: Vec<String> = services(&files).service.into_iter().map(|one| one.name).collect();
        for name in ["raftgrid.v1.JobService", "raftpb.TaskService", "api.MLWorkerService"] {
            assert!(names.iter().any(|have| have == name), "{name} in {names:?}");
        }
        let found = files.iter().find(|file| declares(file, "raftgrid.v1.JobService.Submit"));
        let Answered::file_descriptor_response(answer) = with_imports(&files, found) else { panic!("not found") };
        let parsed =
            |bytes: &Vec<u8>| FileDescriptorProto::parse_from_bytes(bytes).expect("encoded here").get_name().to_owned();
        let sent: Vec<String> = answer.file_descriptor_proto.iter().map(parsed).collect();
        assert_eq!(sent[0], "raftgrid/v1/job.proto");
        assert!(sent.contains(&"raftgrid/v1/types.proto".to_owned()), "{sent:?}");
        assert!(matches!(with_imports(&files, None), Answered::error_response(_)));
    }
}
