//! One run: a cluster, clients, faults one after another, then peace, then judgement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::chance::Chance;
use crate::cluster::{pause_ms, wait_for, Cluster};
use crate::disks::Disks;
use crate::limits::VIOLATIONS_SHOWN;
use crate::load::{Load, Mix, Shared};
use crate::nemesis::{draw, Fault, Nemesis};
use crate::netns::Net;
use crate::proxy::{holds_socket, Proxies};
use crate::verdict::{audit, judge, Verdict};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For people.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// Three or five.
    pub replicas: usize,
    /// Ends after so many kills …
    pub kills: u64,
    /// … or after this long, whichever is first.
    pub time: Duration,
    /// Faults and their weights.
    pub faults: Vec<(Fault, u64)>,
    /// Replicas in network namespaces, not behind proxies.
    pub routed: bool,
    /// Each replica on a small disk of its own.
    pub small_disks: bool,
    /// Put before the command line of the first replica, whose disk is then slow or fails.
    pub wrap: Vec<String>,
    /// That replica must end itself in the run: its disk fails.
    pub must_end: bool,
    /// Clients.
    pub mix: Mix,
    /// Longer pauses of clients.
    pub slower: u32,
    /// The program.
    pub controld: PathBuf,
    /// Snapshots after so few entries that they happen during the run.
    pub config: Option<PathBuf>,
}

/// What happened.
#[derive(Debug)]
pub struct Outcome {
    /// For people.
    pub name: String,
    /// Fault → how often.
    pub faults: BTreeMap<Fault, u64>,
    /// Processes killed.
    pub kills: u64,
    /// Milliseconds from each kill of a leader to the next acknowledged write that was asked after it.
    pub failovers_ms: Vec<u64>,
    /// How long the faults went on.
    pub time: Duration,
    /// The judgement.
    pub verdict: Verdict,
    /// Where everything was kept, if something is wrong.
    pub kept: Option<PathBuf>,
}

/// Runs the plan in `dir`.
pub fn fire(plan: &Plan, dir: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let net = plan.routed.then(|| Net::new(plan.replicas)).transpose()?;
    let mut seats = match &net {
        Some(net) => net.seats(dir),
        None => Cluster::loopback(dir, plan.replicas)?,
    };
    let proxies = match &net {
        Some(_) => None,
        None => Some(Proxies::start(&seats.iter().map(|seat| seat.raft.clone()).collect::<Vec<_>>())?),
    };
    // Unmounted after the last process has ended.
    let data: Vec<PathBuf> = seats.iter().map(|seat| seat.data_dir.clone()).collect();
    let disks = plan.small_disks.then(|| Disks::mount(&data)).transpose()?;
    seats[0].wrap.extend(plan.wrap.clone());
    for (at, seat) in seats.iter_mut().enumerate() {
        if let Some(proxies) = &proxies {
            seat.raft_public = proxies.addresses()[at].clone();
        }
        if let Some(config) = &plan.config {
            seat.flags.extend(["--config".to_owned(), config.display().to_string()]);
        }
    }
    let cluster = Arc::new(match plan.mix.etcd {
        0 => Cluster::new(&plan.controld, seats)?,
        _ => Cluster::of_etcd(&plan.controld, seats)?,
    });
    if let Some(proxies) = &proxies {
        let owners = cluster.clone();
        proxies.find_owners(Box::new(move |inode| {
            owners.pids().into_iter().find(|(pid, _)| holds_socket(*pid, inode)).map(|(_, at)| at)
        }));
    }
    let result =
        run(plan, dir, &cluster, Between { proxies: proxies.as_ref(), net: net.as_ref(), disks: disks.as_ref() });
    for at in 0..cluster.len() {
        cluster.kill(at);
    }
    result
}

/// Where faults are done.
struct Between<'a> {
    proxies: Option<&'a Proxies>,
    net: Option<&'a Net>,
    disks: Option<&'a Disks>,
}

fn run(plan: &Plan, dir: &Path, cluster: &Cluster, between: Between<'_>) -> Result<Outcome> {
    let Between { proxies, net, disks } = between;
    for at in 0..cluster.len() {
        cluster.start(at)?;
    }
    cluster.settled()?;
    let endpoints: Vec<String> = cluster.seats().iter().map(|seat| seat.client.clone()).collect();
    let load = Load::start(Shared::new(endpoints, plan.seed, plan.slower), plan.mix)?;
    let mut nemesis = Nemesis { cluster, proxies, net, disks, chance: Chance::new(plan.seed, 1) };
    let started = Instant::now();
    let mut outcome = Outcome::new(&plan.name);
    let faults = under_fire(plan, cluster, &load, &mut nemesis, &mut outcome);
    outcome.time = started.elapsed();
    let judged = faults.map(|()| Judged { whole: plan.mix.etcd == 0, proxies });
    outcome.conclude(plan.seed, dir, cluster, load, judged)
}

/// What there is to be judged beside the history.
pub(crate) struct Judged<'a> {
    /// The replicas are raftgrid's: what they hold is counted, and their digests are compared.
    pub(crate) whole: bool,
    /// Before their Raft ports.
    pub(crate) proxies: Option<&'a Proxies>,
}

impl Judged<'_> {
    fn judge(&self, cluster: &Cluster, shared: &Shared) -> Result<Verdict> {
        cluster.settled().context("after the last fault")?;
        let mut verdict = judge(&shared.record);
        if self.whole {
            audit(&shared.record, &shared.caller(2)?, &cluster.endpoints(), &mut verdict)?;
            if let Err(error) = cluster.equal_digests() {
                verdict.wrong.push(format!("{error:#}"));
            }
        }
        if let Some((connections, strangers)) = self.proxies.map(Proxies::counts) {
            // A rule that holds for nobody would prove nothing.
            if strangers * 4 > connections {
                verdict
                    .wrong
                    .push(format!("{strangers} of {connections} connections were not recognised by the proxy"));
            }
        }
        Ok(verdict)
    }
}

impl Outcome {
    /// Of a run in which nothing has happened yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            faults: BTreeMap::new(),
            kills: 0,
            failovers_ms: Vec::new(),
            time: Duration::ZERO,
            verdict: Verdict::default(),
            kept: None,
        }
    }

    /// Counts something that was done.
    pub(crate) fn did(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Ends the load, judges the run, and keeps what shows a wrong one. `judged` is an error if the run itself went wrong.
    pub(crate) fn conclude(
        mut self,
        seed: u64,
        dir: &Path,
        cluster: &Cluster,
        load: Load,
        judged: Result<Judged<'_>>,
    ) -> Result<Self> {
        let shared = load.stop();
        let judged = judged.and_then(|judged| judged.judge(cluster, &shared));
        self.verdict = judged.unwrap_or_else(|error| Verdict {
            wrong: vec![format!("{error:#}\n{}", cluster.last_words())],
            ..Verdict::default()
        });
        if !self.verdict.wrong.is_empty() {
            let path = dir.join("history.txt");
            let wrong = &self.verdict.wrong;
            shared.record.write(&path, &format!("seed {seed}\n{}", wrong.join("\n")))?;
            for what in wrong.iter().take(VIOLATIONS_SHOWN) {
                println!("WRONG  {what}");
            }
            println!("{} things are wrong in {}; history and logs: {}", wrong.len(), self.name, dir.display());
            self.kept = Some(path);
        }
        Ok(self)
    }
}

fn under_fire(
    plan: &Plan,
    cluster: &Cluster,
    load: &Load,
    nemesis: &mut Nemesis<'_>,
    outcome: &mut Outcome,
) -> Result<()> {
    let started = Instant::now();
    let record = &load.shared.record;
    let mut ended = 0;
    // Something must be there before the first fault.
    wait_for("the first acknowledged writes", || (record.acks().len() > 20).then_some(()))?;
    while outcome.kills < plan.kills && started.elapsed() < plan.time {
        ended += revive(plan, cluster)?;
        let fault = draw(&mut nemesis.chance, &plan.faults);
        let leader =
            cluster.settled().with_context(|| format!("before fault {}", outcome.faults.values().sum::<u64>()))?;
        let mut killed_at = None;
        nemesis.strike(fault, leader, || killed_at = Some(record.now())).with_context(|| fault.to_string())?;
        outcome.did(fault);
        outcome.kills += fault.kills(cluster.len());
        // The cluster is whole again: writes must go on.
        let healed = record.now();
        wait_for("an acknowledged write after a fault", || record.first_ack_after(healed))
            .with_context(|| format!("after: {fault}\n{}", cluster.last_words()))?;
        if let (Fault::KillLeader, Some(killed)) = (fault, killed_at) {
            let next = record.first_ack_after(killed).unwrap_or(killed);
            outcome.failovers_ms.push((next - killed) / 1_000);
        }
        pause_ms(nemesis.chance.between(50, 600));
    }
    if plan.must_end && ended == 0 {
        anyhow::bail!("the replica whose disk fails went on");
    }
    Ok(())
}

/// A replica whose disk fails ends itself; it is started again, on a disk that works. Nobody else may end by itself. How many did.
fn revive(plan: &Plan, cluster: &Cluster) -> Result<u64> {
    let died = cluster.died();
    let count = died.len() as u64;
    for (node, status) in died {
        let at = (node - 1) as usize;
        if !plan.must_end || at != 0 {
            anyhow::bail!("replica {node} ended by itself ({status})\n{}", cluster.last_words());
        }
        let said = std::fs::read_to_string(&cluster.seats()[at].log).unwrap_or_default();
        let last = said.lines().rfind(|line| line.contains("failed to sync")).map(str::to_owned);
        let last =
            last.with_context(|| format!("replica {node} ended without saying why\n{}", cluster.last_words()))?;
        println!("replica {node} ended by itself, as it must on a disk that fails: {last}");
        cluster.start_plain(at)?;
    }
    Ok(count)
}
