//! The tables at the end.

use comfy_table::{presets::UTF8_HORIZONTAL_ONLY, Table};
use raftgrid_crashpoint::PLACES;

use super::plan::{Kind, Plan};
use super::python::PythonPoint;
use super::run::Outcome;
use super::Tally;

/// Characters of a SHA-256 that a row shows.
const DIGEST_SHOWN: usize = 16;

/// A run, as soon as it is over.
pub(super) fn line(plan: &Plan, outcome: Option<&Outcome>) -> String {
    let names =
        |points: &[raftgrid_crashpoint::Point]| points.iter().map(|point| point.name()).collect::<Vec<_>>().join(" ");
    let head = format!(
        "run {} ({} workers, {} replicas; {} | {})",
        plan.number,
        plan.workers,
        plan.replicas,
        names(&plan.replica_points),
        names(&plan.worker_points)
    );
    match outcome {
        None => format!("{head}: WRONG"),
        Some(outcome) => {
            let (killed, at_points) = (outcome.kills.values().sum::<u64>(), outcome.hits.values().sum::<u64>());
            format!(
                "{head}: {} s, {killed} killed, {at_points} at points, model {}",
                outcome.seconds, outcome.account.model
            )
        }
    }
}

/// All runs.
pub(super) fn runs(rows: &[(Plan, Option<Outcome>)]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "run",
        "workers",
        "replicas",
        "s",
        "leader",
        "follower",
        "worker",
        "python",
        "all",
        "at points",
        "python at points",
        "acknowledged",
        "sent again",
        "reproducible",
        "model",
    ]);
    for (plan, outcome) in rows {
        let mut row = vec![plan.number.to_string(), plan.workers.to_string(), plan.replicas.to_string()];
        match outcome {
            None => row.push("WRONG".to_owned()),
            Some(outcome) => {
                let kills = Kind::EACH.iter().map(|kind| outcome.kills.get(kind).copied().unwrap_or(0).to_string());
                row.push(outcome.seconds.to_string());
                row.extend(kills);
                row.push(outcome.hits.values().sum::<u64>().to_string());
                row.push(outcome.python.values().map(|(_, count)| count).sum::<u64>().to_string());
                let account = &outcome.account;
                row.extend([account.acknowledged.to_string(), account.again.to_string(), account.reproducible.clone()]);
                row.push(account.model.chars().take(DIGEST_SHOWN).collect());
            }
        }
        table.add_row(row);
    }
    table.to_string()
}

/// How often processes ended where.
pub(super) fn points(tally: &Tally) -> String {
    let hits = |point| tally.hits.get(&point).copied().unwrap_or(0);
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["point", "of", "deaths", "what is true there"]);
    for place in PLACES.iter().filter(|place| tally.armed.contains(&place.point)) {
        table.add_row([
            place.name.to_owned(),
            place.owner.to_string(),
            hits(place.point).to_string(),
            place.state.to_owned(),
        ]);
    }
    let mut python = 0;
    for point in PythonPoint::EACH {
        let (ordered, count) = tally.python.get(&point).copied().unwrap_or_default();
        if ordered {
            python += usize::from(count > 0);
            table.add_row([point.to_string(), "python".to_owned(), count.to_string(), String::new()]);
        }
    }
    let armed = tally.armed.len() + tally.python.values().filter(|(ordered, _)| *ordered).count();
    let come = PLACES.iter().filter(|place| hits(place.point) > 0).count() + python;
    let kills: Vec<String> =
        Kind::EACH.iter().map(|kind| format!("{kind} {}", tally.kills.get(kind).copied().unwrap_or(0))).collect();
    let all = PLACES.len() + PythonPoint::EACH.len();
    format!(
        "{table}\npoints come to: {come} of {armed} armed, {all} there are; kills from outside: {}",
        kills.join(", ")
    )
}
