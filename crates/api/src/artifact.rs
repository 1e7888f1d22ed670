//! ArtifactService: bytes that outlive processes.

use std::sync::Arc;

use raftgrid_proto::v1::*;
use raftgrid_replica::ports::{Purpose, Uploaded};
use raftgrid_rpc::methods;

use crate::calls::{propose, read, Incoming, Outgoing, Surface};
use crate::context::{Context, Core};
use crate::failure::{not_found, Answer, Failure};
use crate::streams::{receive, send, Begin, Piece};
use crate::{validate, views};

pub(crate) fn register(surface: Surface) -> Surface {
    surface
        .client_streaming(&methods::PUT_ARTIFACT, put)
        .server_streaming(&methods::GET_ARTIFACT, get)
        .unary(&methods::STAT_ARTIFACT, stat)
        .unary(&methods::LIST_ARTIFACTS, list)
        .unary(&methods::DELETE_ARTIFACT, delete)
}

impl Piece for PutArtifactChunk {
    fn begin(&mut self, _: &Context) -> Answer<Begin> {
        validate::artifact_name("name", self.get_name())?;
        validate::optional_name("kind", self.get_kind())?;
        Ok(Begin {
            purpose: Purpose::Artifact { name: self.take_name(), kind: self.take_kind() },
            total_bytes: (self.get_total_bytes() > 0).then_some(self.get_total_bytes()),
            digest: self.take_digest(),
            checked: true,
        })
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
    let answer = receive(&core, &context, &mut stream).await.and_then(|uploaded| match uploaded {
        Uploaded::Artifact { artifact_id, digest } => {
            let mut response = PutArtifactResponse::new();
            response.set_artifact_id(artifact_id.to_string());
            response.set_digest(digest.to_vec());
            Ok(response)
        }
        Uploaded::Ack(_) => Err(Failure::from(raftgrid_replica::ports::CallError::Internal(
            "the replica acknowledged an artifact as a gradient".to_owned(),
        ))),
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

async fn delete(core: Arc<Core>, context: Context, request: DeleteArtifactRequest) -> Answer<DeleteArtifactResponse> {
    validate::name("artifact", request.get_artifact())?;
    validate::optional_name("request_id", request.get_request_id())?;
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
    let (artifacts, next) =
        views::artifacts(&*view.rows, validate::page(request.get_limit()), request.get_page_token())?;
    let mut response = ListArtifactsResponse::new();
    response.set_artifacts(artifacts.into());
    response.set_next_page_token(next);
    Ok(response)
}
