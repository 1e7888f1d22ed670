//! The examples of ml-code/examples on a cluster: each has the model there, to the last bit, that it has alone in one process.

mod harness;

use std::process::Command;

use harness::{checkout, python, Cluster};
use sha2::{Digest, Sha256};

/// One example: how it is run, and the packages that it needs.
struct Example {
    name: &'static str,
    script: &'static str,
    rounds: &'static str,
    shards: &'static str,
    arguments: &'static [&'static str],
    needs: &'static str,
}

const EXAMPLES: [Example; 7] = [
    Example { name: "mlp", script: "digits_mlp.py", rounds: "4", shards: "6", arguments: &[], needs: "sklearn" },
    Example { name: "line", script: "linear_diabetes.py", rounds: "8", shards: "4", arguments: &[], needs: "sklearn" },
    Example { name: "cnn", script: "digits_cnn.py", rounds: "3", shards: "4", arguments: &[], needs: "jax, sklearn" },
    Example {
        name: "fedavgm",
        script: "fedavg_uneven.py",
        rounds: "3",
        shards: "8",
        arguments: &["--strategy", "fedavgm"],
        needs: "numpy",
    },
    Example {
        name: "fedadam",
        script: "fedavg_uneven.py",
        rounds: "3",
        shards: "8",
        arguments: &["--strategy", "fedadam"],
        needs: "numpy",
    },
    Example {
        name: "diloco",
        script: "local_sgd.py",
        rounds: "4",
        shards: "4",
        arguments: &["--encoding", "i8"],
        needs: "numpy",
    },
    Example {
        name: "localsgd",
        script: "local_sgd.py",
        rounds: "4",
        shards: "4",
        arguments: &["--outer", "mean", "--encoding", "bf16"],
        needs: "numpy",
    },
];

impl Example {
    fn path(&self) -> String {
        checkout().join("ml-code/examples").join(self.script).display().to_string()
    }

    fn can_run(&self) -> bool {
        let import = format!("import {}", self.needs);
        Command::new(python()).args(["-c", &import]).output().expect("Python runs").status.success()
    }

    /// The SHA-256 of its model, as it prints it.
    fn alone(&self) -> String {
        let output = Command::new(python())
            .args([self.path().as_str(), "--rounds", self.rounds, "--shards", self.shards])
            .args(self.arguments)
            .env("PYTHONPATH", checkout().join("ml-code/src"))
            // As workerd sets it.
            .env("OPENBLAS_NUM_THREADS", "1")
            .output()
            .expect("Python runs");
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix("model sha256="));
        line.unwrap_or_else(|| panic!("{} prints no model: {text}", self.name)).to_owned()
    }

    fn submit(&self, cluster: &Cluster) {
        let path = self.path();
        let mut line = vec!["train", path.as_str(), "--name", self.name, "--rounds", self.rounds];
        let endpoints = cluster.endpoints().join(",");
        line.extend_from_slice(&["--shards", self.shards, "--workers", "2", "--endpoints", &endpoints, "--"]);
        line.extend_from_slice(self.arguments);
        let output = Command::new(harness::program("gridctl")).args(&line).output().expect("gridctl runs");
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    /// The SHA-256 of the bytes that anybody gets.
    fn on(&self, cluster: &Cluster, folder: &std::path::Path) -> String {
        let (code, out, errors) = cluster.gridctl(&["job", "wait", self.name, "--timeout", "180s"]);
        assert_eq!(code, 0, "{}: {out}{errors}", self.name);
        let file = folder.join(self.name);
        let (model, to) = (format!("{}/model@latest", self.name), file.display().to_string());
        let (code, out, errors) = cluster.gridctl(&["artifact", "get", &model, "-o", &to]);
        assert_eq!(code, 0, "{}: {out}{errors}", self.name);
        let bytes = std::fs::read(file).expect("the model is there");
        Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[test]
fn each_example_has_the_model_on_a_cluster_that_it_has_alone() {
    let mut cluster = Cluster::start(3, &[]);
    for number in 1..=2 {
        cluster.start_worker(&format!("worker-{number}"));
    }
    let (run, left): (Vec<&Example>, Vec<&Example>) = EXAMPLES.iter().partition(|example| example.can_run());
    for example in left {
        println!("{} needs {}, which is not installed", example.name, example.needs);
    }
    assert!(run.len() >= 4, "NumPy at least is there");
    run.iter().for_each(|example| example.submit(&cluster));
    let alone: Vec<String> = run.iter().map(|example| example.alone()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    for (example, expected) in run.iter().zip(alone) {
        assert_eq!(example.on(&cluster, folder.path()), expected, "{}", example.name);
    }
}
