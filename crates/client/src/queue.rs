//! Queues, and the maintenance of nodes.

use raftgrid_proto::v1::*;
use raftgrid_rpc::methods::{QUEUE_DELETE, QUEUE_LIST, QUEUE_PUT, SET_MAINTENANCE};

use crate::call::Client;
use crate::error::ClientError;

impl Client {
    /// Makes a queue, or changes its share and limits.
    pub fn put_queue(&self, queue: Queue) -> Result<Queue, ClientError> {
        let mut request = PutQueueRequest::new();
        request.set_queue(queue);
        Ok(self.call(&QUEUE_PUT, &request, self.config().timeout)?.take_queue())
    }

    /// All queues.
    pub fn list_queues(&self) -> Result<Vec<Queue>, ClientError> {
        Ok(self.call(&QUEUE_LIST, &ListQueuesRequest::new(), self.config().timeout)?.take_queues().into_vec())
    }

    /// Deletes a queue whose tasks are all over.
    pub fn delete_queue(&self, name: &str) -> Result<(), ClientError> {
        let mut request = DeleteQueueRequest::new();
        request.set_name(name.to_owned());
        self.call(&QUEUE_DELETE, &request, self.config().timeout)?;
        Ok(())
    }

    /// Drains a node for so many milliseconds (0: until it is ended), or ends that.
    pub fn set_maintenance(&self, node_id: &str, for_ms: u64, off: bool) -> Result<Node, ClientError> {
        let mut request = SetMaintenanceRequest::new();
        request.set_node_id(node_id.to_owned());
        request.set_for_ms(for_ms);
        request.set_off(off);
        Ok(self.call(&SET_MAINTENANCE, &request, self.config().timeout)?.take_node())
    }
}
