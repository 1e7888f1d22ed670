//! ArtifactService: bytes that outlive processes.

use std::sync::Arc;

use raftgrid_manifest::NAMES_SINCE;
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{ArtifactMeta, Purpose, Uploaded};
use raftgrid_rpc::methods;

use crate::calls::{propose, read, Incoming, Outgoing, Surface};
use crate::context::{Context, Core};
use crate::failure::{invalid, not_found, Answer, Failure};
use crate::streams::{receive, send, Begin, Piece, Taken};
use crate::{validate, views};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .client_streaming(&methods::PUT_ARTIFACT, put)
        .server_streaming(&methods::GET_ARTIFACT, get)
        .unary(&methods::STAT_ARTIFACT, stat)
        .unary(&methods::LIST_ARTIFACTS, list)
        .unary(&methods::DELETE_ARTIFACT, delete)
        .unary(&methods::NAME_ARTIFACT, name)
}

impl Piece for PutArtifactChunk {
    fn begin(&mut self, _: &Context) -> Answer<Begin> {
        validate::artifact_name("name", self.get_name())?;
        validate::optional_name("kind", self.get_kind())?;
        validate::optional_name("request_id", self.get_request_id())?;
        if self.get_keep() != 0 && !self.get_versioned() {
            return Err(invalid("keep", "only with `versioned`"));
        }
        Ok(Begin {
            purpose: Purpose::Artifact(ArtifactMeta {
                name: self.take_name(),
                kind: self.take_kind(),
                versioned: self.get_versioned(),
                keep: self.get_keep(),
                request_id: self.take_request_id(),
            }),
            total_bytes: (self.get_total_bytes() > 0).then_some(self.get_total_bytes()),
            digest: self.take_digest(),
            checked: true,
        })
    }
    fn whole(&self) -> Option<Vec<u8>> {
        None
    }
    fn offset(&self) -> u64 {
        self.get_offset()
    }
    fn checksum(&self) -> u32 {
        self.get_crc32c()
    }
    fn take(&mut self) -> Vec<u8> {
        self.take_data()
    }
}

async fn put(
    core: Arc<Core>,
    context: Context,
    mut stream: Incoming<PutArtifactChunk>,
) -> (Incoming<PutArtifactChunk>, Answer<PutArtifactResponse>) {
    let answer = receive(&core, &context, &mut stream).await.and_then(|taken| match taken {
        Taken::Whole(Uploaded::Artifact { artifact_id, digest, version, existing }) => {
            let mut response = PutArtifactResponse::new();
            response.set_artifact_id(artifact_id.to_string());
            response.set_digest(digest.to_vec());
            response.set_version(version);
            response.set_existing(existing);
            Ok(response)
        }
        Taken::Whole(Uploaded::Ack(_) | Uploaded::Value { .. }) | Taken::Asked(_) => Err(Failure::from(
            raftgrid_replica::ports::CallError::Internal("the replica took an artifact for something else".to_owned()),
        )),
    });
    (stream, answer)
}

async fn get(
    core: Arc<Core>,
    _: Context,
    mut request: GetArtifactRequest,
    mut sink: Outgoing<ArtifactChunk>,
) -> (Outgoing<ArtifactChunk>, Answer<()>) {
    let (artifact, offset) = (request.take_artifact(), request.get_offset());
    let answer = async {
        validate::name("artifact", &artifact)?;
        if views::artifact(&*read(&core, Consistency::LOCAL).await?.rows, &artifact)?.is_none() {
            // This replica may be behind the one that acknowledged it. If it cannot know, it does not say that there is no such artifact.
            if let Err(unknown) = read(&core, Consistency::LINEARIZABLE).await {
                if views::artifact(&*read(&core, Consistency::LOCAL).await?.rows, &artifact)?.is_none() {
                    return Err(unknown);
                }
            }
        }
        let bytes = core.ports.bytes.clone();
        let open = move || Ok((0, bytes.open_artifact(&artifact)?));
        send(&core, &mut sink, offset, open, |piece| {
            let mut chunk = ArtifactChunk::new();
            chunk.set_offset(piece.offset);
            chunk.set_crc32c(piece.crc32c);
            if let Some(head) = piece.head {
                chunk.set_total_bytes(head.total_bytes);
                chunk.set_digest(head.digest.to_vec());
                chunk.set_artifact_id(head.artifact_id.to_string());
            }
            chunk.set_data(piece.data);
            chunk
        })
        .await
    }
    .await;
    (sink, answer)
}

async fn stat(core: Arc<Core>, _: Context, request: StatArtifactRequest) -> Answer<StatArtifactResponse> {
    validate::name("artifact", request.get_artifact())?;
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let mut response = StatArtifactResponse::new();
    if let Some(info) = views::artifact(&*view.rows, request.get_artifact())? {
        response.set_artifact(info);
        response.set_found(true);
    }
    Ok(response)
}

/// From machine version 6 on apply finds what is meant, so that a repeated call gets the first one's answer.
async fn delete(
    core: Arc<Core>,
    context: Context,
    mut request: DeleteArtifactRequest,
) -> Answer<DeleteArtifactResponse> {
    validate::name("artifact", request.get_artifact())?;
    validate::optional_name("request_id", request.get_request_id())?;
    if views::machine_version(&*read(&core, Consistency::LOCAL).await?.rows)? < NAMES_SINCE {
        return delete_unversioned(core, context, request).await;
    }
    let (artifact, all) = (request.take_artifact(), request.get_all());
    let kind = Command_oneof_kind::remove_artifact(RemoveArtifact { artifact, all, ..RemoveArtifact::default() });
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let mut response = DeleteArtifactResponse::new();
    response.set_artifact_id(reply.get_id().to_owned());
    response.set_versions(reply.get_number());
    Ok(response)
}

async fn name(core: Arc<Core>, context: Context, mut request: NameArtifactRequest) -> Answer<NameArtifactResponse> {
    validate::name("artifact", request.get_artifact())?;
    validate::name("name", request.get_name())?;
    validate::optional_name("request_id", request.get_request_id())?;
    let kind = Command_oneof_kind::name_artifact(NameArtifact {
        from: request.take_artifact(),
        name: request.take_name(),
        keep: request.get_keep(),
        ..NameArtifact::default()
    });
    let reply = propose(&core, &context, request.get_request_id(), kind).await?;
    let mut response = NameArtifactResponse::new();
    response.set_artifact_id(reply.get_id().to_owned());
    response.set_version(reply.get_number());
    response.set_existing(reply.get_outcome() == Outcome::EXISTING);
    Ok(response)
}

async fn delete_unversioned(
    core: Arc<Core>,
    context: Context,
    request: DeleteArtifactRequest,
) -> Answer<DeleteArtifactResponse> {
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let found = views::artifact(&*view.rows, request.get_artifact())?;
    let info = found.ok_or_else(|| not_found("artifact", request.get_artifact()))?;
    let artifact_id = info.get_artifact_id().parse().unwrap_or(0);
    let kind = Command_oneof_kind::delete_artifact(DeleteArtifact { artifact_id, ..DeleteArtifact::default() });
    propose(&core, &context, request.get_request_id(), kind).await?;
    let mut response = DeleteArtifactResponse::new();
    response.set_artifact_id(info.get_artifact_id().to_owned());
    Ok(response)
}

async fn list(core: Arc<Core>, _: Context, request: ListArtifactsRequest) -> Answer<ListArtifactsResponse> {
    let view = read(&core, Consistency::LINEARIZABLE).await?;
    let mut response = ListArtifactsResponse::new();
    if request.get_usage() {
        response.set_usage(views::artifact_usage(&*view.rows)?.into());
        return Ok(response);
    }
    if !request.get_name().is_empty() {
        validate::name("name", request.get_name())?;
        response.set_artifacts(views::artifact_versions(&*view.rows, request.get_name())?.into());
        return Ok(response);
    }
    let (artifacts, next) =
        views::artifacts(&*view.rows, validate::page(request.get_limit()), request.get_page_token())?;
    response.set_artifacts(artifacts.into());
    response.set_next_page_token(next);
    Ok(response)
}
