//! What a cluster says of the job in the end, what it holds, and what of it must be equal in all runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use serde_json::Value;

use super::{Tools, JOB, SHARDS};
use crate::cluster::Cluster;

/// What one run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// SHA-256 of the last model, as the ledger has it.
    pub model: String,
    /// The hash chain over all rounds: inputs and model of each.
    pub ledger: String,
    /// The last model's bytes, the same from every replica.
    pub bytes: Vec<u8>,
    /// Gradients that came again and were not counted.
    pub again: u64,
    /// Gradients that were acknowledged to workers.
    pub acknowledged: u64,
    /// yes or unverified.
    pub reproducible: String,
}

impl Account {
    /// What differs from the undisturbed run, though it must not.
    pub fn differs(&self, undisturbed: &Self) -> Option<String> {
        let pairs = [("model", &self.model, &undisturbed.model), ("ledger", &self.ledger, &undisturbed.ledger)];
        let differing = pairs.into_iter().find(|(_, here, there)| here != there);
        if let Some((what, here, there)) = differing {
            return Some(format!("the {what} is {here}, that of the undisturbed run {there}"));
        }
        (self.bytes != undisturbed.bytes).then(|| "the model's bytes differ, though the ledgers are equal".to_owned())
    }
}

/// Asks for it. An account that is not clean is an error.
pub fn account(tools: &Tools, cluster: &Cluster, acks: &[PathBuf], dir: &Path) -> Result<Account> {
    cluster.equal_digests()?;
    let endpoints: Vec<String> = cluster.seats().iter().map(|seat| seat.client.clone()).collect();
    let mut words: Vec<String> = ["job", "audit", JOB, "--recompute", "--output", "json"].map(str::to_owned).to_vec();
    for file in acks {
        words.extend(["--acks".to_owned(), file.display().to_string()]);
    }
    let audit = ask(tools, &words, &endpoints)?;
    let audit: Value = serde_json::from_str(&audit).context("failed to read the job's account")?;
    let mut account = clean(&audit, tools.rounds, cluster.len())?;
    for (at, endpoint) in endpoints.iter().enumerate() {
        let file = dir.join(format!("model-{}.safetensors", at + 1));
        let (name, target) = (format!("{JOB}/model@latest"), file.display().to_string());
        let words = ["artifact", "get", name.as_str(), "-o", target.as_str()].map(str::to_owned);
        ask(tools, &words, std::slice::from_ref(endpoint))?;
        let bytes = std::fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
        if at > 0 && bytes != account.bytes {
            bail!("replica {} gives other bytes for the last model than replica 1", at + 1);
        }
        account.bytes = bytes;
    }
    Ok(account)
}

/// Nothing lost, nothing twice, every acknowledgement in the ledger, and each replica recomputes every round.
fn clean(audit: &Value, rounds: u64, replicas: usize) -> Result<Account> {
    let figure = |name: &str| audit[name].as_u64().with_context(|| format!("the account has no {name}: {audit}"));
    let text = |name: &str| {
        audit[name].as_str().map(str::to_owned).with_context(|| format!("the account has no {name}: {audit}"))
    };
    let expected = rounds * SHARDS;
    let wanted = [
        ("rounds", rounds),
        ("expected", expected),
        ("accepted", expected),
        ("lost", 0),
        ("duplicated", 0),
        ("mismatches", 0),
        ("rejected", 0),
    ];
    for (name, value) in wanted {
        if figure(name)? != value {
            bail!("{name} is {}, not {value}: {audit}", figure(name)?);
        }
    }
    if audit["ledger_verified"] != Value::Bool(true) || figure("verified_from_round")? != 0 {
        bail!("the hash chain of the ledger is not verified from the first round: {audit}");
    }
    let reproducible = text("reproducible")?;
    if !["yes", "unverified"].contains(&reproducible.as_str()) {
        bail!("reproducible: {reproducible}: {audit}");
    }
    let acknowledged = audit["acks"]["acknowledged"].as_u64().unwrap_or(0);
    let missing = audit["acks"]["missing"].as_array().is_none_or(|missing| !missing.is_empty());
    if acknowledged == 0 || missing || audit["acks"]["in_ledger"].as_u64() != Some(acknowledged) {
        bail!("what workers were acknowledged for is not in the ledger, or they noted nothing: {audit}");
    }
    let model = text("model_sha256")?;
    let recomputed = audit["recomputed"].as_array().map_or(&[][..], Vec::as_slice);
    let agrees = |one: &Value| {
        one["model_sha256"] == *model
            && one["from_round"].as_u64() == Some(0)
            && one["to_round"].as_u64() == Some(rounds)
            && one["differing"].as_array().is_some_and(Vec::is_empty)
    };
    if recomputed.len() != replicas || !recomputed.iter().all(agrees) {
        bail!("not every replica recomputes every round to the ledger's bytes: {audit}");
    }
    let again = figure("refused_duplicates")?;
    Ok(Account { model, ledger: text("ledger_sha256")?, bytes: Vec::new(), again, acknowledged, reproducible })
}

fn ask(tools: &Tools, words: &[String], endpoints: &[String]) -> Result<String> {
    let mut command = Command::new(&tools.gridctl);
    command.args(words).args(["--endpoints", &endpoints.join(",")]).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("failed to start {}", tools.gridctl.display()))?;
    if !output.status.success() {
        bail!("gridctl {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn thrice(one: Value) -> Value {
        json!([one, one, one])
    }

    fn audit() -> Value {
        let recomputed = json!({"model_sha256": "ab", "from_round": 0, "to_round": 2, "differing": []});
        json!({
            "rounds": 2, "expected": 12, "accepted": 12, "lost": 0, "duplicated": 0, "mismatches": 0, "rejected": 0,
            "ledger_verified": true, "verified_from_round": 0, "reproducible": "yes", "model_sha256": "ab",
            "ledger_sha256": "cd", "refused_duplicates": 3,
            "acks": {"acknowledged": 12, "in_ledger": 12, "missing": []},
            "recomputed": thrice(recomputed),
        })
    }

    #[test]
    fn an_account_with_anything_wrong_is_not_clean() {
        let account = clean(&audit(), 2, 3).expect("it is clean");
        assert_eq!((account.model.as_str(), account.ledger.as_str(), account.again), ("ab", "cd", 3));
        for (key, wrong) in [
            ("rounds", json!(1)),
            ("accepted", json!(11)),
            ("lost", json!(1)),
            ("duplicated", json!(1)),
            ("mismatches", json!(1)),
            ("rejected", json!(1)),
            ("ledger_verified", json!(false)),
            ("verified_from_round", json!(1)),
            ("reproducible", json!("no")),
            ("acks", json!({"acknowledged": 0, "in_ledger": 0, "missing": []})),
            ("acks", json!({"acknowledged": 2, "in_ledger": 1, "missing": ["round 0 shard 1"]})),
            ("acks", Value::Null),
            ("recomputed", json!([])),
            ("recomputed", thrice(json!({"model_sha256": "ab", "from_round": 1, "to_round": 2, "differing": []}))),
            ("recomputed", thrice(json!({"model_sha256": "ac", "from_round": 0, "to_round": 2, "differing": []}))),
            ("recomputed", thrice(json!({"model_sha256": "ab", "from_round": 0, "to_round": 2, "differing": ["x"]}))),
        ] {
            let mut audit = audit();
            audit[key] = wrong;
            assert!(clean(&audit, 2, 3).is_err(), "{key}: {}", audit[key]);
        }
    }

    #[test]
    fn another_model_ledger_or_file_differs_from_the_undisturbed_run() {
        let account = clean(&audit(), 2, 3).expect("it is clean");
        assert_eq!(account.differs(&account), None);
        assert_eq!(
            Account { again: 9, reproducible: "unverified".to_owned(), ..account.clone() }.differs(&account),
            None
        );
        for other in [
            Account { model: "ba".to_owned(), ..account.clone() },
            Account { ledger: "dc".to_owned(), ..account.clone() },
            Account { bytes: vec![1], ..account.clone() },
        ] {
            assert!(other.differs(&account).is_some(), "{other:?}");
        }
    }
}
