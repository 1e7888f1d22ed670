//! `gridctl node`: the workers of the cluster.

use raftgrid_proto::v1::{Eligibility, Node as NodeMessage};
use serde_json::{json, Value};

use crate::cli::Node;
use crate::context::{exit_on_interrupt, Context};
use crate::failure::Result;
use crate::output::{ago, word};

pub(crate) fn run(context: &Context, command: Node) -> Result<()> {
    exit_on_interrupt();
    let client = context.client()?;
    let (node, eligibility) = match command {
        Node::List => {
            let nodes = client.list_nodes()?;
            let json = Value::Array(nodes.iter().map(node_json).collect());
            let headers = [
                "node",
                "status",
                "eligibility",
                "tasks",
                "slots",
                "cpu %",
                "address",
                "region",
                "gpus",
                "cannot run",
                "problem",
                "beat",
            ];
            context.output.show(&headers, nodes.iter().map(row).collect(), &json);
            return Ok(());
        }
        Node::Maintenance { node, period, off } => {
            let for_ms = period.map_or(0, |period| u64::try_from(period.as_millis()).unwrap_or(u64::MAX));
            let node = client.set_maintenance(&node, for_ms, off)?;
            let sentence = format!("node {} is {}", node.get_node_id(), word(node.get_eligibility(), ""));
            context.output.done(sentence, &node_json(&node));
            return Ok(());
        }
        Node::Drain { node } => (node, Eligibility::DRAINING),
        Node::Cordon { node } => (node, Eligibility::CORDONED),
        Node::Uncordon { node } => (node, Eligibility::ELIGIBLE),
    };
    let node = client.set_node_eligibility(&node, eligibility)?;
    let sentence = format!("node {} is {}", node.get_node_id(), word(node.get_eligibility(), ""));
    context.output.done(sentence, &node_json(&node));
    Ok(())
}

fn row(node: &NodeMessage) -> Vec<String> {
    vec![
        node.get_node_id().to_owned(),
        word(node.get_status(), ""),
        word(node.get_eligibility(), ""),
        node.get_active_tasks().to_string(),
        node.get_capacity().get_slots().to_string(),
        format!("{:.0}", node.get_cpu_usage() * 100.0),
        node.get_address().to_owned(),
        node.get_region().to_owned(),
        gpus(node),
        node.get_unable().join(", "),
        node.get_problem().to_owned(),
        ago(node.get_last_heartbeat()),
    ]
}

/// `4×H100`, or as many words as there are models.
fn gpus(node: &NodeMessage) -> String {
    let mut models: Vec<(&str, usize)> = Vec::new();
    for gpu in node.get_gpus() {
        match models.iter_mut().find(|(model, _)| *model == gpu.get_model()) {
            Some((_, count)) => *count += 1,
            None => models.push((gpu.get_model(), 1)),
        }
    }
    models.iter().map(|(model, count)| format!("{count}×{model}")).collect::<Vec<_>>().join(", ")
}

fn node_json(node: &NodeMessage) -> Value {
    json!({
        "node": node.get_node_id(),
        "status": word(node.get_status(), ""),
        "eligibility": word(node.get_eligibility(), ""),
        "active_tasks": node.get_active_tasks(),
        "slots": node.get_capacity().get_slots(),
        "cpu_usage": node.get_cpu_usage(),
        "memory_usage": node.get_memory_usage(),
        "address": node.get_address(),
        "cloud_provider": node.get_cloud_provider(),
        "region": node.get_region(),
        "last_heartbeat": node.get_last_heartbeat(),
        "incarnation": node.get_incarnation(),
        "maintenance_until_ms": node.get_maintenance_until_ms(),
        "version": node.get_version(),
        "unable": node.get_unable().to_vec(),
        "problem": node.get_problem(),
        "gpus": node.get_gpus().iter().map(|gpu| json!({"model": gpu.get_model(), "memory_bytes": gpu.get_memory_bytes()})).collect::<Vec<_>>(),
        "labels": node.get_labels().iter().map(|it| (it.get_key().to_owned(), json!(it.get_value()))).collect::<serde_json::Map<_, _>>(),
    })
}
