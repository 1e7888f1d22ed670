//! QueueService: queues of tasks with shares and quotas.

use std::sync::Arc;

use raftgrid_manifest::views;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::calls::{propose, read, read_at, Surface};
use crate::context::{Context, Core};
use crate::failure::{not_found, Answer};
use crate::validate;

pub(crate) fn register(surface: Surface) -> Surface {
    surface.unary(&methods::QUEUE_PUT, put).unary(&methods::QUEUE_LIST, list).unary(&methods::QUEUE_DELETE, delete)
}

async fn put(core: Arc<Core>, context: Context, mut request: PutQueueRequest) -> Answer<PutQueueResponse> {
    let name = request.get_queue().get_name().to_owned();
    validate::name("queue.name", &name)?;
    let kind = Command_oneof_kind::put_queue(PutQueue { queue: request.queue.take().into(), ..PutQueue::default() });
    let reply = propose(&core, &context, "", kind).await?;
    let view = read_at(&core, reply.get_position()).await?;
    let queue = views::get_queue(&*view.rows, &name)?.ok_or_else(|| not_found("queue", &name))?;
    let mut response = PutQueueResponse::new();
    response.set_queue(queue);
    Ok(response)
}

async fn list(core: Arc<Core>, _: Context, request: ListQueuesRequest) -> Answer<ListQueuesResponse> {
    let view = read(&core, request.get_consistency()).await?;
    let mut response = ListQueuesResponse::new();
    response.set_queues(views::list_queues(&*view.rows)?.into());
    response.set_read_position(view.position);
    response.set_age_ms(view.age_ms);
    Ok(response)
}

async fn delete(core: Arc<Core>, context: Context, mut request: DeleteQueueRequest) -> Answer<DeleteQueueResponse> {
    validate::name("name", request.get_name())?;
    let kind = Command_oneof_kind::delete_queue(DeleteQueue { name: request.take_name(), ..DeleteQueue::default() });
    propose(&core, &context, "", kind).await?;
    let mut response = DeleteQueueResponse::new();
    response.set_existed(true);
    Ok(response)
}
