//! Sizes and shapes of what clients send, refused before anything is proposed. Each refusal names its field.

use raftgrid_proto::v1::JobSpec;

use crate::failure::{invalid, Answer};
use crate::limits;

/// At most `max` bytes.
pub(crate) fn size(field: &str, bytes: usize, max: usize) -> Answer<()> {
    if bytes > max {
        return Err(invalid(
            field,
            format!("{bytes} bytes; at most {max} are allowed, put larger input into an artifact"),
        ));
    }
    Ok(())
}

/// An id or name that may be empty: short, and without control characters.
pub(crate) fn optional_name(field: &str, name: &str) -> Answer<()> {
    size(field, name.len(), limits::NAME_BYTES_MAX)?;
    if name.chars().any(char::is_control) {
        return Err(invalid(field, "contains a control character"));
    }
    Ok(())
}

/// Empty, or a name whose parts between slashes are such: it is no path, and does not look like one.
pub(crate) fn artifact_name(field: &str, name: &str) -> Answer<()> {
    optional_name(field, name)?;
    if !name.is_empty() && name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(invalid(field, "a part between slashes is empty, . or .."));
    }
    Ok(())
}

/// An id or name that must be there.
pub(crate) fn name(field: &str, name: &str) -> Answer<()> {
    if name.is_empty() {
        return Err(invalid(field, "is empty"));
    }
    optional_name(field, name)
}

/// Empty, or one JSON value of at most `max` bytes.
pub(crate) fn json(field: &str, bytes: &[u8], max: usize) -> Answer<()> {
    size(field, bytes.len(), max)?;
    if bytes.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(field, format!("is not JSON: {error}"))),
    }
}

/// The parts of a job's specification that can be judged without the state.
pub(crate) fn job(spec: &JobSpec) -> Answer<()> {
    name("spec.name", spec.get_name())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !spec.get_name().chars().all(plain) {
        return Err(invalid("spec.name", "only letters, digits, '.', '_' and '-' are allowed"));
    }
    name("spec.type", spec.get_field_type())?;
    json("spec.task_data", spec.get_task_data(), limits::TASK_DATA_BYTES_MAX)?;
    dag("spec.dag", spec)?;
    if spec.get_field_type() != "train" {
        return Ok(());
    }
    if !spec.has_train() {
        return Err(invalid("spec.train", "is missing for a job of type train"));
    }
    let train = spec.get_train();
    for (field, value) in [
        ("spec.train.shards", u64::from(train.get_shards())),
        ("spec.train.workers", u64::from(train.get_workers())),
        ("spec.train.rounds", train.get_rounds()),
    ] {
        if value == 0 {
            return Err(invalid(field, "must be at least 1"));
        }
    }
    if train.get_quorum() > train.get_shards() {
        return Err(invalid("spec.train.quorum", format!("more than the {} shards", train.get_shards())));
    }
    if !(0.0..=1.0).contains(&train.get_verify()) {
        return Err(invalid("spec.train.verify", "must be between 0 and 1"));
    }
    Ok(())
}

/// The tasks of a dag are JSON, like any task.
pub(crate) fn dag(field: &str, spec: &JobSpec) -> Answer<()> {
    for task in spec.get_dag() {
        optional_name(&format!("{field}.name"), task.get_name())?;
        let field = format!("{field}.{}.task_data", task.get_name());
        json(&field, task.get_task_data(), limits::TASK_DATA_BYTES_MAX)?;
    }
    Ok(())
}

/// A page's limit as asked, within bounds.
pub(crate) fn page(limit: i32) -> usize {
    match usize::try_from(limit) {
        Ok(limit) if limit > 0 => limit.min(limits::PAGE_ROWS_MAX),
        _ => limits::PAGE_ROWS_DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    fn message(answer: Answer<()>) -> String {
        match answer.expect_err("refused") {
            Failure::Status(status) => status.message().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_that_looks_like_a_path_is_refused() {
        for good in ["", "model", "job/model", "a/b.c/d-1"] {
            assert!(artifact_name("name", good).is_ok(), "{good}");
        }
        for bad in ["../x", "a/../b", "/etc", "a//b", "a/", "./a", "..", "a\nb"] {
            assert!(artifact_name("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_refusal_names_its_field() {
        assert!(message(size("task_data", 11, 10)).starts_with("task_data: 11 bytes"));
        assert!(message(name("task_id", "")).starts_with("task_id: "));
        assert!(message(name("task_id", "a\nb")).starts_with("task_id: "));
        assert!(message(json("task_data", b"{\"n\": }", 100)).starts_with("task_data: is not JSON"));
        assert!(json("task_data", b"{\"n\": 1}", 100).is_ok() && json("task_data", b"", 100).is_ok());
    }

    #[test]
    fn a_train_job_needs_its_numbers() {
        let mut spec = JobSpec::new();
        spec.set_name("digits".to_owned());
        spec.set_field_type("train".to_owned());
        assert!(message(job(&spec)).starts_with("spec.train: "));
        spec.mut_train().set_shards(6);
        spec.mut_train().set_workers(3);
        assert!(message(job(&spec)).starts_with("spec.train.rounds: "));
        spec.mut_train().set_rounds(60);
        assert!(job(&spec).is_ok());
        spec.mut_train().set_quorum(7);
        assert!(message(job(&spec)).starts_with("spec.train.quorum: "));
        spec.set_name("../x".to_owned());
        assert!(message(job(&spec)).starts_with("spec.name: "));
    }
}
