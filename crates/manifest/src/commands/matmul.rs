//! C = A·B by blocks, as a graph: `map-I-J-K` multiplies block (I, K) of A with block (K, J) of B, `reduce-I-J` adds those products over K,
//! `product` puts C together and tells its SHA-256, and `check`, where there is a script for it, holds that against another program.
//!
//! Each task but the last leaves its block as an artifact with the name of the task, so that it outlives the worker that made it.

use raftgrid_proto::v1::{DagEdge, DagTask, JobSpec, MatmulSpec};
use serde_json::{json, Map};

use crate::commands::job_spec::MATMUL;
use crate::error::Fault;
use crate::limits::{DAG_TASKS_MAX, DEPENDENCIES_MAX, ID_BYTES_MAX, MATMUL_BLOCK_MAX, MATMUL_SIDE_MAX};
use crate::reply::invalid;
use crate::text::check_bytes;

/// Blocks along rows, columns and the inner side.
fn blocks(spec: &MatmulSpec) -> (u32, u32, u32) {
    let count = |side: u32| side.div_ceil(spec.block.max(1));
    (count(spec.rows), count(spec.columns), count(spec.inner))
}

pub(crate) fn check(spec: &MatmulSpec) -> Result<(), Fault> {
    for (name, side) in [("rows", spec.rows), ("inner", spec.inner), ("columns", spec.columns)] {
        if side == 0 || side > MATMUL_SIDE_MAX {
            return Err(invalid(&format!("spec.matmul.{name}"), format!("1 to {MATMUL_SIDE_MAX}, is {side}")));
        }
    }
    if spec.block == 0 || spec.block > MATMUL_BLOCK_MAX {
        return Err(invalid("spec.matmul.block", format!("1 to {MATMUL_BLOCK_MAX}, is {}", spec.block)));
    }
    let (rows, columns, inner) = blocks(spec);
    let reduces = u64::from(rows) * u64::from(columns);
    let tasks = reduces.saturating_mul(u64::from(inner)).saturating_add(reduces + 2);
    let most = DEPENDENCIES_MAX as u64;
    if tasks > DAG_TASKS_MAX as u64 || reduces > most || u64::from(inner) > most {
        let why = format!(
            "blocks of {} make {tasks} tasks with {reduces} blocks of C; at most {DAG_TASKS_MAX} and {most}, so take larger blocks",
            spec.block
        );
        return Err(invalid("spec.matmul.block", why));
    }
    for (name, text) in [("left", &spec.left), ("right", &spec.right), ("check", &spec.check)] {
        check_bytes(&format!("spec.matmul.{name}"), text.len(), ID_BYTES_MAX)?;
    }
    Ok(())
}

fn edges(names: impl Iterator<Item = String>) -> Vec<DagEdge> {
    names.map(|name| DagEdge { name, ..DagEdge::default() }).collect()
}

/// The tasks, a spec that was checked. Pure: the same spec gives the same bytes.
pub(crate) fn tasks(job: &JobSpec, spec: &MatmulSpec) -> Vec<DagTask> {
    let (rows, columns, inner) = blocks(spec);
    let mut list = Vec::new();
    let task = |name: String, step: &str, i: u32, j: u32, k: u32, depends_on: Vec<DagEdge>| {
        let data = json!({
            "step": step, "job": job.name, "rows": spec.rows, "inner": spec.inner, "columns": spec.columns, "block": spec.block,
            "seed": spec.seed, "left": spec.left, "right": spec.right, "i": i, "j": j, "k": k,
        });
        DagTask {
            name,
            field_type: MATMUL.to_owned(),
            task_data: data.to_string().into_bytes(),
            depends_on: depends_on.into(),
            ..DagTask::default()
        }
    };
    for i in 0..rows {
        for j in 0..columns {
            for k in 0..inner {
                list.push(task(format!("map-{i}-{j}-{k}"), "map", i, j, k, Vec::new()));
            }
            let maps = edges((0..inner).map(|k| format!("map-{i}-{j}-{k}")));
            list.push(task(format!("reduce-{i}-{j}"), "reduce", i, j, 0, maps));
        }
    }
    let reduces = edges((0..rows).flat_map(|i| (0..columns).map(move |j| format!("reduce-{i}-{j}"))));
    list.push(task("product".to_owned(), "product", 0, 0, 0, reduces));
    if !spec.check.is_empty() {
        let mut inputs = Map::new();
        inputs.insert("product".to_owned(), format!("{}/product", job.name).into());
        for (name, artifact) in [("left", &spec.left), ("right", &spec.right)] {
            if !artifact.is_empty() {
                inputs.insert(name.to_owned(), artifact.as_str().into());
            }
        }
        let data = json!({
            "script": spec.check,
            "inputs": inputs,
            "config": {"rows": spec.rows, "inner": spec.inner, "columns": spec.columns, "seed": spec.seed},
        });
        list.push(DagTask {
            name: "check".to_owned(),
            field_type: "python".to_owned(),
            task_data: data.to_string().into_bytes(),
            depends_on: edges(["product".to_owned()].into_iter()).into(),
            ..DagTask::default()
        });
    }
    list
}
