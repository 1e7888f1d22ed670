//! The environment of a task's process. Pure.
//!
//! Order, the later wins: the worker's own without RAFTGRID_*, the task's spec, its JSON, the reproducible settings, raftgrid's own.

use std::collections::BTreeMap;

use raftgrid_proto::v1::{Task, TaskSpec};

/// What makes the same script give the same bytes: one thread per BLAS, fixed kernels, a fixed hash seed.
const REPRODUCIBLE: [(&str, &str); 7] = [
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("NUMEXPR_NUM_THREADS", "1"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("PYTHONHASHSEED", "0"),
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
];

/// Variables of one process.
pub(crate) type Variables = BTreeMap<String, String>;

/// The worker's own environment as far as tasks get it.
pub(crate) fn inherited() -> Variables {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| !key.starts_with("RAFTGRID_"))
        .collect()
}

/// Adds what the task's spec and JSON ask for. Names of raftgrid's own are not theirs to set.
pub(crate) fn add_tasks_own(variables: &mut Variables, spec: &TaskSpec, json: &BTreeMap<String, String>) {
    let of_spec = spec.get_env().iter().map(|label| (label.get_key(), label.get_value()));
    let of_json = json.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in of_spec.chain(of_json) {
        let valid = !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0');
        if valid && !key.starts_with("RAFTGRID_") {
            variables.insert(key.to_owned(), value.to_owned());
        }
    }
}

/// Adds what tells an element of an array or sweep which one it is. A parameter that is text is given as it is, any other as JSON.
pub(crate) fn add_element(variables: &mut Variables, task: &Task) {
    if task.get_array_count() == 0 {
        return;
    }
    variables.insert("RAFTGRID_ARRAY_INDEX".to_owned(), task.get_array_index().to_string());
    variables.insert("RAFTGRID_ARRAY_COUNT".to_owned(), task.get_array_count().to_string());
    for parameter in task.get_parameters() {
        let value = match serde_json::from_str(parameter.get_value()) {
            Ok(serde_json::Value::String(text)) => text,
            Ok(_) | Err(_) => parameter.get_value().to_owned(),
        };
        if !value.contains('\0') {
            variables.insert(format!("RAFTGRID_PARAM_{}", parameter.get_key().to_ascii_uppercase()), value);
        }
    }
}

/// Adds the reproducible settings of `train` tasks; `openblas_coretype` of the job, "" for the machine's own.
pub(crate) fn add_reproducible(variables: &mut Variables, openblas_coretype: &str) {
    for (key, value) in REPRODUCIBLE {
        variables.insert(key.to_owned(), value.to_owned());
    }
    if openblas_coretype.is_empty() {
        variables.remove("OPENBLAS_CORETYPE");
    } else {
        variables.insert("OPENBLAS_CORETYPE".to_owned(), openblas_coretype.to_owned());
    }
}

/// Adds what a Python process needs: unbuffered output, and modules from the bundle first, then from `python_path`.
pub(crate) fn add_python(variables: &mut Variables, bundle: Option<&str>, python_path: &str) {
    let inherited = variables.get("PYTHONPATH").cloned().unwrap_or_default();
    let parts = [bundle.unwrap_or_default(), python_path, &inherited];
    let joined = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(":");
    if !joined.is_empty() {
        variables.insert("PYTHONPATH".to_owned(), joined);
    }
    variables.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftgrid_proto::v1::Label;

    fn spec(pairs: &[(&str, &str)]) -> TaskSpec {
        let mut spec = TaskSpec::new();
        for (key, value) in pairs {
            let mut label = Label::new();
            label.set_key((*key).to_owned());
            label.set_value((*value).to_owned());
            spec.mut_env().push(label);
        }
        spec
    }

    #[test]
    fn a_job_cannot_undo_reproducibility_by_its_environment() {
        let mut variables = Variables::new();
        add_tasks_own(&mut variables, &spec(&[("OMP_NUM_THREADS", "8"), ("A", "1")]), &BTreeMap::new());
        add_reproducible(&mut variables, "Haswell");
        assert_eq!(variables["OMP_NUM_THREADS"], "1");
        assert_eq!(variables["OPENBLAS_CORETYPE"], "Haswell");
        assert_eq!(variables["A"], "1");
    }

    #[test]
    fn the_core_type_of_the_worker_s_shell_does_not_leak_into_a_job() {
        let mut variables = Variables::from([("OPENBLAS_CORETYPE".to_owned(), "Zen".to_owned())]);
        add_reproducible(&mut variables, "");
        assert!(!variables.contains_key("OPENBLAS_CORETYPE"));
    }

    #[test]
    fn raftgrid_s_names_are_not_a_task_s_to_set() {
        let mut variables = Variables::new();
        let json = BTreeMap::from([("RAFTGRID_TOKEN".to_owned(), "stolen".to_owned())]);
        add_tasks_own(&mut variables, &spec(&[("RAFTGRID_AGENT", "elsewhere")]), &json);
        assert!(variables.is_empty());
    }

    #[test]
    fn modules_come_from_the_bundle_first() {
        let mut variables = Variables::from([("PYTHONPATH".to_owned(), "/own".to_owned())]);
        add_python(&mut variables, Some("/bundle"), "/ml-code");
        assert_eq!(variables["PYTHONPATH"], "/bundle:/ml-code:/own");
    }
}
