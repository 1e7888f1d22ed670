//! Job files: the examples, the document, and each mistake.

use super::*;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn parsed(text: &str) -> JobFile {
    parse(text, Path::new("/jobs"), &[]).unwrap_or_else(|failure| panic!("{failure}\n{text}"))
}

fn wrong(text: &str) -> String {
    let failure = parse(text, Path::new("/jobs"), &[]).expect_err(text);
    assert_eq!(failure.status() as i32, 2, "{failure}");
    let line = failure.to_string();
    assert!(!line.contains('\n') && line.contains("; try: "), "{line}");
    line
}

fn json_of(data: &[u8]) -> Json {
    serde_json::from_slice(data).expect("JSON")
}

#[test]
fn every_example_is_a_job_with_scripts_that_exist() {
    let folder = checkout().join("ml-code/examples");
    let mut types = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the checkout has examples").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let file = read(&path, &[]).unwrap_or_else(|failure| panic!("{failure}"));
            assert!(!file.spec.name.is_empty(), "{}", path.display());
            for script in &file.scripts {
                assert!(script.is_file(), "{} names {}", path.display(), script.display());
            }
            types.push(file.spec.field_type.clone());
            types.extend(file.spec.array.as_ref().map(|_| "array".to_owned()));
            types.extend(file.spec.sweep.first().map(|_| "sweep".to_owned()));
            types.extend(file.schedule.map(|_| "schedule".to_owned()));
        }
    }
    for wanted in ["command", "python", "train", "matmul", "eval", "dag", "array", "sweep", "schedule"] {
        assert!(types.iter().any(|found| found == wanted), "no example of {wanted} in {types:?}");
    }
}

#[test]
fn the_document_has_every_key_and_no_other() {
    let document = std::fs::read_to_string(checkout().join("docs/job-files.md")).expect("there is one");
    for (section, keys) in KEYS {
        let head = if section.is_empty() { "## The file".to_owned() } else { format!("## `[{section}]`") };
        let part = document.split("\n## ").find(|part| format!("## {part}").starts_with(&format!("{head}\n")));
        let part = part.unwrap_or_else(|| panic!("docs/job-files.md has no section {head}"));
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut named: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let mut known: Vec<&str> = keys.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known, "docs/job-files.md, {head}");
    }
}

#[test]
fn a_file_says_all_that_a_task_has() {
    let file = parsed(
        r#"
        name = "a"
        type = "command"
        [command]
        argv = ["a", "b"]
        env = { A = "1", B = 2 }
        stdin = "text"
        [task]
        cpu = 1.5
        memory = "2GiB"
        gpus = 1
        slots = 2
        priority = 7
        max_retries = 0
        start_timeout = "30s"
        run_timeout = 90
        queue_ttl = "2h"
        deadline_unix_ms = 5
        constraints = { region = "eu" }
        env = { C = "3" }
        on_disconnect = "continue"
        preferred_nodes = ["n"]
        depends_on = ["x", { task = "y", when = "ended" }]
        "#,
    );
    assert_eq!(
        json_of(&file.spec.task_data),
        json!({"argv": ["a", "b"], "env": {"A": "1", "B": "2"}, "stdin": "text"})
    );
    let task = file.spec.get_task();
    let resources = task.get_resources();
    assert_eq!((resources.cpu_milli, resources.memory_bytes, resources.gpus, resources.slots), (1_500, 2 << 30, 1, 2));
    assert_eq!((task.priority, task.max_retries, task.retries_given), (7, 0, true));
    assert_eq!((task.start_timeout_ms, task.run_timeout_ms, task.queue_ttl_ms), (30_000, 90_000, 7_200_000));
    assert_eq!((task.constraints[0].key.as_str(), task.env[0].value.as_str()), ("region", "3"));
    assert_eq!(task.depends_on[1].condition, Condition::WHEN_ENDED);
}

#[test]
fn keys_are_given_other_values_from_the_command_line() {
    let text = "name = \"m\"\ntype = \"matmul\"\n[matmul]\nrows = 8\ninner = 8\ncolumns = 8\nblock = 4\n";
    let settings = ["matmul.block=2".to_owned(), "name=other".to_owned(), "task.env.A=b c".to_owned()];
    let file = parse(text, Path::new("/jobs"), &settings).expect("good");
    assert_eq!((file.spec.name.as_str(), file.spec.get_matmul().block), ("other", 2));
    assert_eq!(file.spec.get_task().env[0].value, "b c");
    for (setting, part) in [("matmul", "no `=`"), ("=3", "no key"), ("name.x=3", "`name` is no section")] {
        let failure = parse(text, Path::new("/jobs"), &[setting.to_owned()]).expect_err(setting);
        assert!(failure.to_string().contains(part), "{failure}");
    }
}

#[test]
fn scripts_are_found_beside_the_file_and_travel_from_one_folder() {
    let file = parsed("name = \"a\"\ntype = \"python\"\npython.script = \"code/a.py\"\npython.config.lr = 0.1\n");
    assert_eq!(file.scripts, [PathBuf::from("/jobs/code/a.py")]);
    assert_eq!(json_of(&file.spec.task_data), json!({"script": "a.py", "config": {"lr": 0.1}}));
    let line = wrong("type = \"dag\"\n[dag.a]\ntype=\"python\"\npython.script=\"a.py\"\n[dag.b]\ntype=\"python\"\npython.script=\"x/b.py\"\n");
    assert!(line.contains("dag.b.python.script is in another folder"), "{line}");
}

#[test]
fn a_dag_and_a_sweep_keep_their_shape() {
    let file = parsed(
        "name = \"d\"\ntype = \"dag\"\n[dag.a]\ntype = \"command\"\ncommand.argv = [\"true\"]\n\
         [dag.b]\ntype = \"command\"\ncommand.argv = [\"false\"]\ntask.gpus = 1\ndepends_on = [{ task = \"a\", when = \"failed\" }]\n",
    );
    let dag = file.spec.get_dag();
    assert_eq!((dag.len(), dag[1].depends_on[0].name.as_str()), (2, "a"));
    assert_eq!((dag[1].depends_on[0].condition, dag[1].get_spec().get_resources().gpus), (Condition::WHEN_FAILED, 1));
    assert!(dag[0].spec.is_none(), "it takes the job's");
    let text = "name = \"s\"\ntype = \"command\"\ncommand.argv = [\"a\"]\n[sweep]\nb = [1, \"x\"]\n[array]\nmax_parallel = 3\n";
    let file = parsed(text);
    assert_eq!(file.spec.sweep[0].values.to_vec(), ["1", "\"x\""]);
    assert_eq!((file.spec.get_array().count, file.spec.get_array().max_parallel), (0, 3));
}

#[test]
fn each_mistake_is_one_line_that_names_its_place() {
    let command = "type = \"command\"\ncommand.argv = [\"a\"]\n";
    let cases = [
        ("name = \"a\"\n".to_owned(), "type is missing"),
        ("type = \"comand\"\n".to_owned(), "type is `comand`"),
        ("type = ".to_owned(), "line 1"),
        (format!("{command}nam = \"a\"\n"), "the file has no key `nam`; try: `name`"),
        (format!("{command}task.memroy = 3\n"), "[task] has no key `memroy`; try: `memory`"),
        (format!("{command}task.xyzzy = 3\n"), "one of cpu, memory"),
        (format!("{command}task.gpus = -1\n"), "task.gpus is -1"),
        (format!("{command}task.cpu = -0.5\n"), "task.cpu is -0.5"),
        (format!("{command}task.cpu = nan\n"), "task.cpu is NaN"),
        (format!("{command}task.memory = \"-1GiB\"\n"), "task.memory is `-1GiB`"),
        (format!("{command}task.priority = 101\n"), "task.priority is 101"),
        (format!("{command}task.run_timeout = \"soon\"\n"), "task.run_timeout is `soon`"),
        (
            format!("{command}task.depends_on = [{{task = \"a\", when = \"never\"}}]\n"),
            "task.depends_on.when is `never`",
        ),
        (format!("{command}task.depends_on = [3]\n"), "task.depends_on must hold names"),
        (format!("{command}name = 3\n"), "name must be text, is integer"),
        (format!("{command}[python]\nscript = \"a.py\"\n"), "python is not for a job of type command"),
        (format!("{command}[sweep]\nlr = 3\n"), "sweep.lr must be a list"),
        (format!("{command}[schedule]\ncronn = \"* * * * *\"\n"), "[schedule] has no key `cronn`; try: `cron`"),
        (format!("{command}[schedule]\ntime_zone = \"UTC\"\n"), "schedule.cron is missing"),
        (format!("{command}[schedule]\ncron = \"* * * * *\"\noverlap = \"never\"\n"), "schedule.overlap is `never`"),
        ("type = \"command\"\n".to_owned(), "command is missing"),
        ("type = \"command\"\ncommand.argv = []\n".to_owned(), "command.argv is missing"),
        ("type = \"python\"\npython.script = \"a\"\npython.code = \"b\"\n".to_owned(), "one of them"),
        ("type = \"eval\"\neval.script = \"a\"\n".to_owned(), "eval.model is missing"),
        ("type = \"train\"\ntrain.script = \"a\"\ntrain.shards = 3\n".to_owned(), "train.workers is missing"),
        ("type = \"matmul\"\nmatmul.rows = 3\n".to_owned(), "matmul.inner is missing"),
        (
            "type = \"matmul\"\nmatmul.n = 3\nmatmul.block = 1\n".to_owned(),
            "matmul.block is not for a product in one task",
        ),
        ("type = \"dag\"\n".to_owned(), "dag is missing"),
        ("type = \"dag\"\n[dag.a]\ncommand.argv = [\"a\"]\n".to_owned(), "dag.a.type is missing"),
        (
            "type = \"dag\"\n[dag.a]\ntype=\"command\"\ncommand.argvv = [\"a\"]\n".to_owned(),
            "[dag.a.command] has no key `argvv`; try: `argv`",
        ),
    ];
    for (text, part) in cases {
        let line = wrong(&text);
        assert!(line.contains(part), "{line}\nis not about\n{part}");
    }
}

#[test]
fn ten_mebibytes_of_data_are_refused_before_anything_is_sent() {
    let text = format!("type = \"python\"\npython.code = \"{}\"\n", "#".repeat(10 << 20));
    let line = wrong(&text);
    assert!(line.contains("more than 128 KiB") && line.contains("gridctl artifact push"), "{line}");
}
