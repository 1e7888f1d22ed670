//! `gridctl job audit --recompute`: each replica sums what the job kept once more, and must come to the ledger's bytes.

use raftgrid_proto::v1::{AuditJobResponse, RecomputeRoundResponse};
use serde_json::{json, Value};

use crate::context::{connect, Context};
use crate::failure::{Failure, Result};
use crate::output::{hex, line};

/// What one replica came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recomputed {
    pub(crate) endpoint: String,
    pub(crate) node_id: u64,
    /// First round, and one after the last.
    pub(crate) range: (u64, u64),
    /// SHA-256 of the newest model that was computed.
    pub(crate) model_digest: Vec<u8>,
    /// `round 7: …` for each round that differs.
    pub(crate) differing: Vec<String>,
}

/// Every replica, one after another: each would give the same processors to it.
pub(crate) fn on_each(context: &Context, audit: &AuditJobResponse) -> Result<Vec<Recomputed>> {
    let range = (audit.get_retained_from_round(), audit.get_rounds_committed());
    let mut all = Vec::new();
    for endpoint in context.endpoints()? {
        let client = connect(vec![endpoint.clone()], &context.global)?;
        let mut found = Recomputed { endpoint, range, ..Recomputed::default() };
        for round in range.0..range.1 {
            let answer = client.recompute_round(audit.get_job_id(), round)?;
            found.note(&answer);
        }
        all.push(found);
    }
    Ok(all)
}

impl Recomputed {
    fn note(&mut self, answer: &RecomputeRoundResponse) {
        self.node_id = answer.get_node_id();
        self.model_digest = answer.get_model_digest().to_vec();
        let pairs = [
            ("model", answer.get_model_digest(), answer.get_ledger_model_digest()),
            ("state", answer.get_state_digest(), answer.get_ledger_state_digest()),
        ];
        for (what, computed, ledger) in pairs {
            if computed != ledger || ledger.is_empty() {
                let (round, computed, ledger) = (answer.get_round(), hex(computed), hex(ledger));
                self.differing.push(format!("round {round}: the {what} is {computed}, the ledger has {ledger}"));
            }
        }
    }

    fn rounds(&self) -> String {
        match self.range {
            (from, to) if from >= to => "no round is kept".to_owned(),
            (from, to) => format!("rounds {from} to {}", to - 1),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "endpoint": self.endpoint, "replica": self.node_id, "from_round": self.range.0, "to_round": self.range.1,
            "model_sha256": hex(&self.model_digest), "differing": self.differing,
        })
    }

    pub(crate) fn show(&self) {
        let Self { node_id, endpoint, .. } = self;
        let rounds = self.rounds();
        let outcome = match self.differing.len() {
            0 => format!("equal to the ledger, SHA-256 {}", hex(&self.model_digest)),
            count => format!("{count} DIFFER: {}", self.differing[0]),
        };
        line(format!("recomputed on replica {node_id} ({endpoint}), {rounds}: {outcome}"));
    }
}

/// The first difference, as a failure.
pub(crate) fn check(job: &str, all: &[Recomputed]) -> Result<()> {
    let differing = all.iter().find_map(|one| Some((one, one.differing.first()?)));
    match differing {
        None => Ok(()),
        Some((one, what)) => Err(Failure::new(
            format!("job {job}: replica {} recomputed another result: {what}", one.node_id),
            "keep the data directories of all replicas; compare the programs' versions and the processors",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_or_state_that_differs_or_is_not_in_the_ledger_is_told() {
        let answer = |model: &[u8], state: &[u8], ledger_state: &[u8]| {
            let mut answer = RecomputeRoundResponse::new();
            answer.set_round(7);
            answer.set_model_digest(model.to_vec());
            answer.set_ledger_model_digest(vec![1]);
            answer.set_state_digest(state.to_vec());
            answer.set_ledger_state_digest(ledger_state.to_vec());
            answer
        };
        let noted = |answer| {
            let mut found = Recomputed { range: (7, 8), ..Recomputed::default() };
            found.note(&answer);
            found
        };
        assert!(check("digits", &[noted(answer(&[1], &[2], &[2]))]).is_ok());
        for (wrong, what) in [
            (answer(&[9], &[2], &[2]), "the model is 09, the ledger has 01"),
            (answer(&[1], &[9], &[2]), "the state is 09, the ledger has 02"),
            (answer(&[1], &[], &[]), "the state is "),
        ] {
            let failure = check("digits", &[noted(wrong)]).expect_err("it differs").to_string();
            assert!(failure.contains(what), "{failure}");
        }
    }
}
