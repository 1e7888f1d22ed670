//! `gridctl job audit`: what the ledger says about the model, and whether it holds what workers were told it holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use raftgrid_client::Client;
use raftgrid_proto::v1::{AuditJobResponse, Contribution};
use serde::Deserialize;
use serde_json::{json, Value};

use crate::cli::Audit;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::limits::ACKS_BYTES_MAX;
use crate::output::{hex, line, word, Output};
use crate::recompute::{self, Recomputed};
use crate::rounds::ended_by;

/// What acknowledged gradients came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acks {
    /// Lines of this job that a worker was acknowledged for.
    pub(crate) acknowledged: u64,
    /// Of them, in the ledger with the same digest.
    pub(crate) in_ledger: u64,
    /// `round 7 shard 3: …` for each other one.
    pub(crate) missing: Vec<String>,
}

/// A line of a worker's acks.jsonl, as far as it counts here. Keys that are not known are left alone: later workers may write more.
#[derive(Debug, Deserialize)]
struct AckLine {
    #[serde(alias = "job_id", alias = "job")]
    job_id: String,
    round: u64,
    shard: u32,
    #[serde(alias = "sha256")]
    digest: String,
    #[serde(default)]
    outcome: String,
}

impl AckLine {
    /// Success: the bytes are durable and the ledger holds them. An old worker's line has no outcome and is written for successes only.
    fn acknowledged(&self) -> bool {
        let outcome = self.outcome.to_ascii_uppercase();
        matches!(outcome.trim_start_matches("ACK_"), "" | "ACCEPTED" | "DUPLICATE")
    }
}

/// What an audit found.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) answer: AuditJobResponse,
    pub(crate) acks: Option<Acks>,
}

impl Report {
    /// Asks the cluster; with `acks` files it also holds their lines against the ledger.
    pub(crate) fn get(client: &Client, name: &str, files: &[PathBuf], contributions: bool) -> Result<Self> {
        let answer = client.audit_job(name, contributions || !files.is_empty())?;
        let by_model = answer.get_mode() == "async";
        let ledger = answer.get_contributions();
        let acks = if files.is_empty() { None } else { Some(check_files(files, name, ledger, by_model)?) };
        Ok(Self { answer, acks })
    }

    /// The first thing that breaks the promise, if any.
    pub(crate) fn broken(&self) -> Option<String> {
        let answer = &self.answer;
        let missing = self.acks.as_ref().and_then(|acks| acks.missing.first());
        if answer.get_lost() > 0 {
            Some(format!("{} gradients are lost", answer.get_lost()))
        } else if answer.get_duplicated() > 0 {
            Some(format!("{} gradients were counted twice", answer.get_duplicated()))
        } else if !answer.get_ledger_hash_verified() && answer.get_rounds_committed() > 0 {
            Some("the hash chain of the ledger does not verify".to_owned())
        } else {
            missing.map(|missing| format!("an acknowledged gradient is not in the ledger: {missing}"))
        }
    }

    pub(crate) fn json(&self) -> Value {
        let answer = &self.answer;
        let mut json = json!({
            "job": answer.get_job_id(),
            "phase": word(answer.get_phase(), "JOB_"),
            "rounds": answer.get_rounds_committed(),
            "expected": answer.get_expected(),
            "accepted": answer.get_accepted(),
            "lost": answer.get_lost(),
            "duplicated": answer.get_duplicated(),
            "refused_duplicates": answer.get_refused_duplicates(),
            "stale": answer.get_stale(),
            "rejected": answer.get_rejected(),
            "mismatches": answer.get_mismatches(),
            "compared": answer.get_compared(),
            "reproducible": answer.get_reproducible(),
            "reproducible_reason": answer.get_reproducible_reason(),
            "model_version": answer.get_model_version(),
            "model_sha256": hex(answer.get_model_digest()),
            "ledger_sha256": hex(answer.get_ledger_hash()),
            "ledger_verified": answer.get_ledger_hash_verified(),
            "verified_from_round": answer.get_verified_from_round(),
            "mode": answer.get_mode(),
            "rounds_by_deadline": answer.get_rounds_by_deadline(),
            "extensions": answer.get_extensions(),
            "stale_gradients": answer.get_stale_gradients(),
            "stalest": answer.get_stalest(),
        });
        if let Some(acks) = &self.acks {
            json["acks"] = json!({
                "acknowledged": acks.acknowledged, "in_ledger": acks.in_ledger, "missing": acks.missing,
            });
        }
        json
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let answer = &self.answer;
        let reason = answer.get_reproducible_reason();
        let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let verified = if answer.get_ledger_hash_verified() {
            format!("verified from round {}", answer.get_verified_from_round())
        } else {
            "NOT verified".to_owned()
        };
        let acks = self.acks.as_ref();
        vec![
            ("job", answer.get_job_id().to_owned()),
            ("phase", word(answer.get_phase(), "JOB_")),
            ("rounds", answer.get_rounds_committed().to_string()),
            (
                "ended by",
                ended_by(
                    answer.get_rounds_committed(),
                    answer.get_rounds_by_deadline(),
                    answer.get_extensions(),
                    answer.get_stale_gradients(),
                    answer.get_stalest(),
                ),
            ),
            ("expected", format!("{} gradients", answer.get_expected())),
            ("accepted", answer.get_accepted().to_string()),
            ("lost", answer.get_lost().to_string()),
            ("duplicated", format!("{} counted twice", answer.get_duplicated())),
            ("sent again", format!("{} times, not counted", answer.get_refused_duplicates())),
            ("stale", answer.get_stale().to_string()),
            ("rejected", answer.get_rejected().to_string()),
            ("compared", format!("{} computed again, {} differ", answer.get_compared(), answer.get_mismatches())),
            (
                "acks",
                acks.map_or(String::new(), |acks| format!("{} of {} in the ledger", acks.in_ledger, acks.acknowledged)),
            ),
            ("reproducible", format!("{}{because}", answer.get_reproducible())),
            ("model", format!("version {}, SHA-256 {}", answer.get_model_version(), hex(answer.get_model_digest()))),
            ("ledger", format!("{}, {verified}", hex(answer.get_ledger_hash()))),
        ]
    }
}

pub(crate) fn run(context: &Context, client: &Client, args: &Audit) -> Result<()> {
    let report = Report::get(client, &args.name, &args.acks, args.contributions)?;
    let contributions = report.answer.get_contributions();
    let mut json = report.json();
    if args.contributions {
        json["contributions"] = Value::Array(contributions.iter().map(contribution_json).collect());
    }
    let recomputed = if args.recompute { recompute::on_each(context, &report.answer)? } else { Vec::new() };
    if args.recompute {
        json["recomputed"] = Value::Array(recomputed.iter().map(Recomputed::json).collect());
    }
    context.output.show_one(report.pairs(), &json);
    if context.output == Output::Table {
        recomputed.iter().for_each(Recomputed::show);
    }
    if args.contributions && context.output == Output::Table {
        line("");
        let headers = ["round", "shard", "model", "node", "attempt", "outcome", "weight", "digest", "reason"];
        let row = |one: &Contribution| {
            vec![
                one.get_round().to_string(),
                one.get_shard().to_string(),
                one.get_model_version().to_string(),
                one.get_node_id().to_owned(),
                one.get_attempt().to_string(),
                one.get_outcome().to_owned(),
                one.get_weight().to_string(),
                hex(one.get_digest()).chars().take(16).collect(),
                one.get_reason().to_owned(),
            ]
        };
        context.output.show(&headers, contributions.iter().map(row).collect(), &Value::Null);
    }
    match report.broken() {
        None => recompute::check(&args.name, &recomputed),
        Some(broken) => Err(Failure::new(
            format!("job {}: {broken}", args.name),
            format!("gridctl job audit {} --contributions, and keep the data directories", args.name),
        )),
    }
}

fn contribution_json(one: &Contribution) -> Value {
    json!({
        "round": one.get_round(), "shard": one.get_shard(), "model": one.get_model_version(), "node": one.get_node_id(), "task": one.get_task_id(),
        "attempt": one.get_attempt(), "sha256": hex(one.get_digest()), "weight": one.get_weight(),
        "outcome": one.get_outcome(), "reason": one.get_reason(),
        "numeric_class": String::from_utf8_lossy(one.get_numeric_class()),
    })
}

fn check_files(files: &[PathBuf], job: &str, ledger: &[Contribution], by_model: bool) -> Result<Acks> {
    let mut total = Acks::default();
    for file in files {
        let failed = |cause: String| {
            Failure::new(format!("acks file {}: {cause}", file.display()), "the acks.jsonl of a worker")
        };
        let length = fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
        if length > ACKS_BYTES_MAX {
            return Err(failed(format!("longer than {} MiB", ACKS_BYTES_MAX >> 20)));
        }
        let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        let found = check_acks(&text, job, ledger, by_model).map_err(failed)?;
        total.acknowledged += found.acknowledged;
        total.in_ledger += found.in_ledger;
        total.missing.extend(found.missing);
    }
    Ok(total)
}

/// Holds the lines of one file against the ledger's contributions of `job`. `by_model`: its workers' rounds are the versions of their models.
pub(crate) fn check_acks(
    text: &str,
    job: &str,
    ledger: &[Contribution],
    by_model: bool,
) -> std::result::Result<Acks, String> {
    let round = |one: &Contribution| if by_model { one.get_model_version() } else { one.get_round() };
    let accepted: BTreeMap<(u64, u32), String> = ledger
        .iter()
        .filter(|one| one.get_outcome().eq_ignore_ascii_case("ACCEPTED"))
        .map(|one| ((round(one), one.get_shard()), hex(one.get_digest())))
        .collect();
    let mut acks = Acks::default();
    let whole = text.ends_with('\n') || text.is_empty();
    let count = text.lines().count();
    for (number, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let ack: AckLine = match serde_json::from_str(text) {
            Ok(ack) => ack,
            // A worker that was killed while it wrote leaves half a line at the end.
            Err(_) if !whole && number + 1 == count => continue,
            Err(error) => return Err(format!("line {}: {error}", number + 1)),
        };
        if ack.job_id != job || !ack.acknowledged() {
            continue;
        }
        acks.acknowledged += 1;
        match accepted.get(&(ack.round, ack.shard)) {
            Some(digest) if *digest == ack.digest.to_ascii_lowercase() => acks.in_ledger += 1,
            Some(other) => {
                acks.missing.push(format!("round {} shard {}: the ledger has {other}", ack.round, ack.shard))
            }
            None => acks.missing.push(format!("round {} shard {}: the ledger has none", ack.round, ack.shard)),
        }
    }
    Ok(acks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contribution(round: u64, shard: u32, digest: u8, outcome: &str) -> Contribution {
        let mut one = Contribution::new();
        one.set_round(round);
        one.set_shard(shard);
        one.set_digest(vec![digest; 2]);
        one.set_outcome(outcome.to_owned());
        one
    }

    fn ack(job: &str, round: u64, shard: u32, digest: &str, outcome: &str) -> String {
        json!({"job_id": job, "round": round, "shard": shard, "digest": digest, "outcome": outcome, "at_ms": 5})
            .to_string()
            + "\n"
    }

    #[test]
    fn acknowledged_lines_must_be_in_the_ledger_with_their_digest() {
        let ledger = [
            contribution(0, 0, 0xaa, "ACCEPTED"),
            contribution(0, 1, 0xbb, "ACCEPTED"),
            contribution(1, 0, 0xcc, "MISMATCH"),
        ];
        let text = [
            ack("digits", 0, 0, "aaaa", "ACCEPTED"),
            ack("digits", 0, 0, "aaaa", "DUPLICATE"),
            ack("digits", 0, 1, "cccc", "ACCEPTED"),
            ack("digits", 1, 0, "cccc", "ACCEPTED"),
            ack("digits", 1, 1, "dddd", "STALE"),
            ack("other", 9, 9, "dddd", "ACCEPTED"),
        ]
        .concat();
        let acks = check_acks(&text, "digits", &ledger, false).expect("it parses");
        assert_eq!((acks.acknowledged, acks.in_ledger), (4, 2));
        assert_eq!(acks.missing.len(), 2);
        assert!(
            acks.missing[0].contains("round 0 shard 1")
                && acks.missing[1].contains("round 1 shard 0: the ledger has none")
        );
    }

    #[test]
    fn acknowledged_lines_of_an_async_job_name_the_model() {
        let mut late = contribution(7, 0, 0xaa, "ACCEPTED");
        late.set_model_version(5);
        let text = ack("digits", 5, 0, "aaaa", "ACCEPTED");
        let in_ledger = |by_model| check_acks(&text, "digits", &[late.clone()], by_model).expect("it parses").in_ledger;
        assert_eq!((in_ledger(true), in_ledger(false)), (1, 0));
    }

    #[test]
    fn half_a_line_is_forgiven_at_the_end_only() {
        let ledger = [contribution(0, 0, 0xaa, "ACCEPTED")];
        let good = ack("digits", 0, 0, "aaaa", "ACCEPTED");
        assert_eq!(
            check_acks(&format!("{good}{{\"job_id\":\"dig"), "digits", &ledger, false).expect("forgiven").acknowledged,
            1
        );
        let error = check_acks(&format!("{{\"job_id\":\"dig\n{good}"), "digits", &ledger, false).unwrap_err();
        assert!(error.starts_with("line 1"), "{error}");
    }

    #[test]
    fn a_report_names_what_breaks_the_promise() {
        let mut answer = AuditJobResponse::new();
        answer.set_rounds_committed(60);
        answer.set_accepted(360);
        answer.set_reproducible("yes".to_owned());
        answer.set_model_digest(vec![0xab; 32]);
        answer.set_ledger_hash_verified(true);
        let mut report = Report { answer, acks: None };
        assert_eq!(report.broken(), None);
        let json = report.json();
        assert_eq!(
            (&json["accepted"], &json["lost"], &json["duplicated"], &json["reproducible"]),
            (&json!(360), &json!(0), &json!(0), &json!("yes"))
        );
        assert_eq!(json["model_sha256"], json!("ab".repeat(32)));
        report.acks = Some(Acks { acknowledged: 1, in_ledger: 0, missing: vec!["round 0 shard 0: x".to_owned()] });
        assert!(report.broken().expect("broken").contains("round 0 shard 0"));
        report.answer.set_lost(2);
        assert_eq!(report.broken().as_deref(), Some("2 gradients are lost"));
    }
}
