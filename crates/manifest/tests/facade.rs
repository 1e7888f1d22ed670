//! The manifest behind plain calls.

use raftgrid_manifest::{check_invariants, Manifest, ManifestError};
use raftgrid_proto::v1::{Node, Outcome, Task, TaskStatus};

fn task(id: &str) -> Task {
    let mut task = Task { task_id: id.into(), task_type: "command".into(), ..Task::default() };
    task.mut_spec().retries_given = true;
    task
}

fn node(id: &str) -> Node {
    Node { node_id: id.into(), ..Node::default() }
}

fn refused(result: Result<(), ManifestError>) -> Outcome {
    match result {
        Err(ManifestError::Refused { outcome, .. }) => outcome,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn tasks_live_through_the_same_commands() -> Result<(), ManifestError> {
    let mut manifest = Manifest::new();
    manifest.set_time_ms(5_000);
    manifest.update_node_heartbeat(node("n"), 5)?;
    for id in ["a", "b", "c"] {
        assert_eq!(manifest.add_task(task(id))?, id);
    }
    assert_eq!(manifest.get_pending_tasks()?.len(), 3);
    assert_eq!(refused(manifest.update_task_status("a", TaskStatus::RUNNING)), Outcome::STALE_LEASE);
    assert_eq!(refused(manifest.update_task_status("a", TaskStatus::ASSIGNED)), Outcome::INVALID);
    assert_eq!(refused(manifest.assign_task("a", "nobody")), Outcome::NOT_FOUND);
    for id in ["a", "b", "c"] {
        manifest.assign_task(id, "n")?;
    }
    assert_eq!(manifest.get_node_task_count("n")?, 3);
    manifest.update_task_status("a", TaskStatus::RUNNING)?;
    assert_eq!(manifest.get_tasks_by_status(TaskStatus::RUNNING)?.len(), 1);
    manifest.complete_task("a", "{}")?;
    manifest.complete_task("a", "{}")?;
    assert_eq!(refused(manifest.complete_task("a", "other")), Outcome::STALE_LEASE);
    manifest.fail_task("b", "boom")?;
    manifest.update_task_status("c", TaskStatus::PENDING)?;
    let status = |id| manifest.get_task(id).map(|task| task.map(|task| task.status));
    assert_eq!(status("a")?, Some(TaskStatus::COMPLETED));
    assert_eq!(status("b")?, Some(TaskStatus::FAILED));
    assert_eq!(status("c")?, Some(TaskStatus::PENDING));
    assert_eq!(status("none")?, None);
    assert_eq!((manifest.get_all_tasks()?.len(), manifest.get_node_task_count("n")?), (3, 0));
    assert_eq!(check_invariants(manifest.rows()).map_err(raftgrid_manifest::ApplyError::from)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn nodes_register_on_first_contact_go_stale_and_come_back() -> Result<(), ManifestError> {
    let mut manifest = Manifest::new();
    for id in ["b", "a"] {
        manifest.update_node_heartbeat(node(id), 100)?;
    }
    assert_eq!(manifest.select_least_loaded_node()?.map(|node| node.node_id).as_deref(), Some("a"));
    manifest.add_task(task("t"))?;
    manifest.assign_task("t", "a")?;
    assert_eq!(manifest.select_least_loaded_node()?.map(|node| node.node_id).as_deref(), Some("b"));
    manifest.update_node_heartbeat(node("b"), 130)?;
    assert_eq!(manifest.check_stale_nodes(130, 30)?, Vec::<String>::new(), "30 s is not more than 30 s");
    assert_eq!(manifest.check_stale_nodes(131, 30)?, ["a"]);
    assert_eq!(manifest.check_stale_nodes(131, 30)?, Vec::<String>::new(), "said once");
    assert_eq!(manifest.get_healthy_nodes()?.len(), 1);
    manifest.mark_node_unhealthy("b")?;
    assert_eq!(manifest.select_least_loaded_node()?, None);
    manifest.update_node_heartbeat(node("a"), 140)?;
    assert_eq!((manifest.get_healthy_nodes()?.len(), manifest.get_all_nodes()?.len()), (1, 2));
    assert_eq!(manifest.get_node_task_count("a")?, 1, "coming back ends no lease");
    assert_eq!(refused(manifest.mark_node_unhealthy("none")), Outcome::NOT_FOUND);
    Ok(())
}
