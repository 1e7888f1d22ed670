//! `gridctl queue`: queues of tasks with shares and quotas.

use raftgrid_proto::v1::Queue as QueueMessage;
use serde_json::{json, Value};

use crate::cli::{Queue, QueuePut};
use crate::context::{exit_on_interrupt, Context};
use crate::failure::Result;

pub(crate) fn run(context: &Context, command: Queue) -> Result<()> {
    exit_on_interrupt();
    let client = context.client()?;
    match command {
        Queue::Put(args) => {
            let queue = client.put_queue(message(args))?;
            let text = format!("queue {} has weight {}", queue.get_name(), queue.get_weight());
            context.output.done(text, &queue_json(&queue));
        }
        Queue::List => {
            let queues = client.list_queues()?;
            let headers = ["queue", "weight", "tasks", "running", "cpus", "memory", "gpus", "slots", "priority"];
            let json = Value::Array(queues.iter().map(queue_json).collect());
            context.output.show(&headers, queues.iter().map(row).collect(), &json);
        }
        Queue::Rm { name } => {
            client.delete_queue(&name)?;
            context.output.done(format!("queue {name} is gone"), &json!({"queue": name}));
        }
    }
    Ok(())
}

fn message(args: QueuePut) -> QueueMessage {
    let mut queue = QueueMessage::new();
    queue.set_name(args.name);
    queue.set_weight(args.weight);
    queue.set_max_running(args.max_running);
    queue.set_default_priority(args.default_priority);
    let quota = queue.mut_quota();
    quota.set_cpu_milli(args.cpu_milli);
    quota.set_memory_bytes(args.memory_bytes);
    quota.set_gpus(args.gpus);
    quota.set_slots(args.slots);
    queue
}

/// What is held, of what may be.
fn of(held: u64, quota: u64) -> String {
    match quota {
        0 => held.to_string(),
        quota => format!("{held}/{quota}"),
    }
}

fn row(queue: &QueueMessage) -> Vec<String> {
    let (usage, quota) = (queue.get_usage(), queue.get_quota());
    vec![
        queue.get_name().to_owned(),
        queue.get_weight().to_string(),
        queue.get_open_tasks().to_string(),
        of(queue.get_running_tasks().into(), queue.get_max_running().into()),
        of(usage.get_cpu_milli(), quota.get_cpu_milli()),
        of(usage.get_memory_bytes(), quota.get_memory_bytes()),
        of(usage.get_gpus().into(), quota.get_gpus().into()),
        of(usage.get_slots().into(), quota.get_slots().into()),
        queue.get_default_priority().to_string(),
    ]
}

fn queue_json(queue: &QueueMessage) -> Value {
    let resources = |of: &raftgrid_proto::v1::Resources| {
        json!({
            "cpu_milli": of.get_cpu_milli(),
            "memory_bytes": of.get_memory_bytes(),
            "gpus": of.get_gpus(),
            "slots": of.get_slots(),
        })
    };
    json!({
        "queue": queue.get_name(),
        "weight": queue.get_weight(),
        "quota": resources(queue.get_quota()),
        "usage": resources(queue.get_usage()),
        "max_running": queue.get_max_running(),
        "running": queue.get_running_tasks(),
        "tasks": queue.get_open_tasks(),
        "default_priority": queue.get_default_priority(),
    })
}
