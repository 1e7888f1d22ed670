//! A rolling upgrade under load: replicas of an older program are asked to end, one by one, and a newer one is started on the same directory.
//!
//! As long as one replica runs the older program the group stays at the older machine version, whoever leads, and the newer program can be
//! taken back. After the last one the version rises by itself; from then on what cannot run it must refuse to start.

use std::path::Path;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use raftgrid_client::{Client, ClientConfig};
use raftgrid_manifest::MACHINE_VERSION;
use raftgrid_proto::v1::LeadershipTransferRequest;
use raftgrid_rpc::methods::CLUSTER_TRANSFER;

use crate::chance::Chance;
use crate::cluster::{pause_ms, wait_for, Cluster, Program};
use crate::fire::{Judged, Outcome};
use crate::limits::{LOOK_PAUSE, MIXED_FOR, TRANSFER_TIMEOUT};
use crate::load::{Load, Mix, Shared};
use crate::nemesis::Fault;
use crate::train::Train;

/// What to do.
pub struct Upgrade {
    /// For people.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// What the replicas begin with; it runs machine version 1.
    pub older: Program,
    /// What they end with.
    pub newer: Program,
    /// What must refuse to start on a directory once the version was raised, and say so.
    pub refuses: Program,
    /// What knows nothing of versions: started on such a directory it must be let in nowhere.
    pub fenced: Option<Program>,
    /// A job that runs meanwhile.
    pub train: Option<Train>,
    /// Longer pauses of clients.
    pub slower: u32,
}

/// Machine version of the older program.
const OLDER_VERSION: u64 = 1;
/// Replicas.
const REPLICAS: usize = 3;

/// Runs it in `dir`.
pub fn upgrade(plan: &Upgrade, dir: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let cluster = Cluster::new(&plan.older.file, Cluster::loopback(dir, REPLICAS)?)?;
    for at in 0..REPLICAS {
        cluster.set_program(at, plan.older.clone());
        cluster.start(at)?;
    }
    cluster.settled().with_context(|| cluster.last_words())?;
    // Workers of the harness would take the job's tasks and report them as done.
    let workers = if plan.train.is_some() { 0 } else { 2 };
    let mix = Mix { registers: 5, submitters: 2, workers, etcd: 0 };
    let load = Load::start(Shared::new(cluster.endpoints(), plan.seed, plan.slower), mix)?;
    let mut run = Run {
        plan,
        cluster: &cluster,
        load: &load,
        chance: Chance::new(plan.seed, 2),
        outcome: Outcome::new(&plan.name),
    };
    let started = Instant::now();
    let done = run.all(dir);
    let mut outcome = run.outcome;
    outcome.time = started.elapsed();
    let outcome =
        outcome.conclude(plan.seed, dir, &cluster, load, done.map(|()| Judged { whole: true, proxies: None }));
    for at in 0..REPLICAS {
        cluster.kill(at);
    }
    outcome
}

struct Run<'a> {
    plan: &'a Upgrade,
    cluster: &'a Cluster,
    load: &'a Load,
    chance: Chance,
    outcome: Outcome,
}

impl Run<'_> {
    fn all(&mut self, dir: &Path) -> Result<()> {
        let record = &self.load.shared.record;
        wait_for("the first acknowledged writes", || (record.acks().len() > 20).then_some(()))?;
        let job = self.plan.train.as_ref().map(|train| train.start(dir, &self.cluster.endpoints())).transpose()?;
        let followers: Vec<usize> = self.in_order()?;
        let [first, second, last] = followers[..] else { bail!("failed to order {REPLICAS} replicas") };

        self.change(first, Fault::Upgrade)?;
        // One newer replica beside two older ones, and it leads: it must not say what they cannot understand.
        self.hand_to(first)?;
        self.stays_old("a newer replica leads two older ones")?;
        self.change(second, Fault::Upgrade)?;
        self.stays_old("one replica is older")?;
        // An upgrade that goes wrong can be taken back as long as the version has not risen.
        self.change(second, Fault::Downgrade)?;
        self.stays_old("one newer replica was taken back")?;
        self.change(second, Fault::Upgrade)?;
        self.kill_leader()?;
        self.stays_old("one replica is older still")?;
        self.change(last, Fault::Upgrade)?;

        wait_for("the machine version to rise everywhere", || {
            let all = |at| self.cluster.state(at).is_some_and(|state| state.machine_version == MACHINE_VERSION);
            (0..REPLICAS).all(all).then_some(())
        })
        .with_context(|| self.cluster.last_words())?;
        self.goes_on("the version rose")?;
        self.kill_leader()?;
        self.refused(last)?;
        self.goes_on("a replica that refused was started with the right program")?;
        self.fenced(last)?;
        job.map_or(Ok(()), |job| job.finish().with_context(|| self.cluster.last_words()))
    }

    /// The leader now comes second: one that is upgraded must take leadership from it, and it must hand it over in its turn.
    fn in_order(&mut self) -> Result<Vec<usize>> {
        let leader = self.cluster.settled()?;
        let others = [(leader + 1) % REPLICAS, (leader + 2) % REPLICAS];
        let swap = usize::from(self.chance.one_in(2));
        Ok(vec![others[swap], leader, others[1 - swap]])
    }

    /// SIGTERM, then the other program on the same directory.
    fn change(&mut self, at: usize, what: Fault) -> Result<()> {
        let program = if what == Fault::Upgrade { &self.plan.newer } else { &self.plan.older };
        let node = self.cluster.seats()[at].node;
        self.cluster.terminate(at).with_context(|| format!("{what} of replica {node}"))?;
        pause_ms(self.chance.between(20, 400));
        self.cluster.set_program(at, program.clone());
        self.cluster.start(at)?;
        self.outcome.did(what);
        self.goes_on(&format!("{what} of replica {node}"))
    }

    /// Nobody has ended by himself, and writes are acknowledged.
    fn goes_on(&self, after: &str) -> Result<()> {
        let record = &self.load.shared.record;
        self.cluster.settled().with_context(|| format!("after: {after}\n{}", self.cluster.last_words()))?;
        let healed = record.now();
        wait_for("an acknowledged write", || record.first_ack_after(healed))
            .with_context(|| format!("after: {after}\n{}", self.cluster.last_words()))?;
        match self.cluster.died().first() {
            None => Ok(()),
            Some((node, how)) => {
                bail!("replica {node} ended by itself ({how}) after: {after}\n{}", self.cluster.last_words())
            }
        }
    }

    /// For a while of load no replica sees the newer version.
    fn stays_old(&self, while_: &str) -> Result<()> {
        let until = Instant::now() + MIXED_FOR;
        while Instant::now() < until {
            for state in (0..REPLICAS).filter_map(|at| self.cluster.state(at)) {
                if state.machine_version != OLDER_VERSION {
                    bail!("replica {} is at machine version {} while {while_}", state.node_id, state.machine_version);
                }
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        self.goes_on(while_)
    }

    fn hand_to(&mut self, at: usize) -> Result<()> {
        let node = self.cluster.seats()[at].node;
        let mut request = LeadershipTransferRequest::new();
        request.set_to(node);
        wait_for("leadership to be handed over", || {
            if self.cluster.leader() == Some(at) {
                return Some(());
            }
            // One that is not caught up yet is refused; it is asked again.
            let client = Client::new(ClientConfig::new(self.cluster.endpoints())).ok()?;
            let _ = client.call(&CLUSTER_TRANSFER, &request, TRANSFER_TIMEOUT);
            None
        })
        .with_context(|| self.cluster.last_words())?;
        self.outcome.did(Fault::Transfer);
        Ok(())
    }

    fn kill_leader(&mut self) -> Result<()> {
        let leader = self.cluster.settled()?;
        let killed = self.load.shared.record.now();
        self.cluster.kill(leader);
        pause_ms(self.chance.between(20, 400));
        self.cluster.start(leader)?;
        self.outcome.did(Fault::KillLeader);
        self.outcome.kills += 1;
        self.goes_on("kill -9 of the leader")?;
        if let Some(next) = self.load.shared.record.first_ack_after(killed) {
            self.outcome.failovers_ms.push((next - killed) / 1_000);
        }
        Ok(())
    }

    /// What may only run the older version must not start on a state of the newer one, and must say why in a line.
    fn refused(&mut self, at: usize) -> Result<()> {
        self.cluster.terminate(at)?;
        self.cluster.set_program(at, self.plan.refuses.clone());
        self.cluster.start(at)?;
        let ended = wait_for("the end of a program that cannot run the version", || self.cluster.exit_status(at))
            .with_context(|| self.cluster.last_words())?;
        let log = std::fs::read_to_string(&self.cluster.seats()[at].log).unwrap_or_default();
        let said = format!("is at machine version {MACHINE_VERSION}, which never falls");
        if ended.success() || !log.lines().last().is_some_and(|line| line.contains(&said)) {
            bail!("it ended with {ended} and did not say that the state {said}\n{}", self.cluster.last_words());
        }
        self.cluster.set_program(at, self.plan.newer.clone());
        self.cluster.start(at)
    }
}

impl Run<'_> {
    /// A program of before there was a check: the others do not let it in, and say so; without it they go on.
    fn fenced(&mut self, at: usize) -> Result<()> {
        let Some(program) = self.plan.fenced.clone() else { return Ok(()) };
        self.cluster.terminate(at)?;
        self.cluster.set_program(at, program);
        self.cluster.start(at)?;
        let others: Vec<_> = (0..REPLICAS).filter(|other| *other != at).collect();
        let said = format!("it runs machine version {OLDER_VERSION}, this group is at {MACHINE_VERSION}");
        wait_for("the refusal of a program that is too old", || {
            let log = |other: &usize| std::fs::read_to_string(&self.cluster.seats()[*other].log).unwrap_or_default();
            others.iter().any(|other| log(other).contains(&said)).then_some(())
        })
        .with_context(|| self.cluster.last_words())?;
        let applied = |at: usize| wait_for("a replica's state", || self.cluster.state(at)).map(|it| it.applied_index);
        let (before, ahead) = (applied(at)?, applied(others[0])?);
        self.goes_on("a program that is too old was started")?;
        pause_ms(u64::try_from(MIXED_FOR.as_millis()).unwrap_or(u64::MAX));
        // What it had acknowledged before it may still learn to be committed; nothing that came later reaches it.
        let after = applied(at)?;
        if after > ahead.max(before) {
            bail!("a program that is too old went on from {before} to {after}\n{}", self.cluster.last_words());
        }
        self.cluster.terminate(at)?;
        self.cluster.set_program(at, self.plan.newer.clone());
        self.cluster.start(at)?;
        self.goes_on("it was upgraded again")
    }
}
