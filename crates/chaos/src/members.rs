//! Changes of the membership one after another, under load, while replicas are killed: learners that come and are promoted, demotions,
//! removals, replacements in one step, leadership handed about. New replicas have new ids and empty directories; those that go are gone.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use raftgrid_client::{request_id, Client, ClientConfig, ClientError, Upload};
use raftgrid_proto::v1::{ChangeMemberRequest, LeadershipTransferRequest};
use raftgrid_rpc::methods::{
    CLUSTER_ADD_LEARNER, CLUSTER_ADD_VOTER, CLUSTER_DEMOTE_VOTER, CLUSTER_REMOVE_SERVER, CLUSTER_REPLACE_SERVER,
    CLUSTER_TRANSFER,
};

use crate::chance::Chance;
use crate::cluster::{pause_ms, wait_for, Cluster, Program};
use crate::fire::{Judged, Outcome};
use crate::limits::{CHANGE_TIMEOUT, LOOK_PAUSE, PATIENCE, PROCESSES_MAX, TRANSFER_TIMEOUT};
use crate::load::{Load, Mix, Shared};
use crate::nemesis::{draw, Fault};

/// What to do.
pub struct Members {
    /// For people.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// Changes.
    pub changes: usize,
    /// What runs.
    pub program: Program,
    /// Longer pauses of clients.
    pub slower: u32,
}

const FOUNDERS: usize = 3;
/// Voters below which none is taken away: one may be down.
const VOTERS_MIN: usize = 3;
const ARTIFACT_BYTES: usize = 300_000;
/// Artifacts uploaded before the first change; another comes after every so many changes.
const ARTIFACTS: usize = 6;
const CHANGES_PER_ARTIFACT: usize = 10;

/// Changes and their weights.
const CHANGES: [(Fault, u64); 6] = [
    (Fault::AddLearner, 4),
    (Fault::AddVoter, 3),
    (Fault::Demote, 3),
    (Fault::Remove, 3),
    (Fault::Replace, 4),
    (Fault::Transfer, 3),
];

/// A change: what, who, and who takes whose place.
struct Change {
    what: Fault,
    /// Place of the replica that it is about.
    at: usize,
    /// Of a replacement: place of the one that goes.
    old: Option<usize>,
}

/// Runs it in `dir`.
pub fn members(plan: &Members, dir: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    // Each change brings one new replica at most.
    let mut seats = Cluster::loopback(dir, FOUNDERS + plan.changes)?;
    for seat in &mut seats[FOUNDERS..] {
        seat.joins = true;
    }
    let cluster = Cluster::new(&plan.program.file, seats)?;
    for at in 0..cluster.len() {
        cluster.set_program(at, plan.program.clone());
    }
    for at in 0..FOUNDERS {
        cluster.start(at)?;
    }
    cluster.settled().with_context(|| cluster.last_words())?;
    let mix = Mix { registers: 5, submitters: 2, workers: 2, etcd: 0 };
    let load = Load::start(Shared::new(cluster.endpoints(), plan.seed, plan.slower), mix)?;
    let mut run = Run {
        cluster: &cluster,
        load: &load,
        chance: Chance::new(plan.seed, 3),
        outcome: Outcome::new(&plan.name),
        next: FOUNDERS,
        artifacts: BTreeMap::new(),
    };
    let started = Instant::now();
    let done = run.all(plan.changes);
    let mut outcome = run.outcome;
    outcome.time = started.elapsed();
    let outcome =
        outcome.conclude(plan.seed, dir, &cluster, load, done.map(|()| Judged { whole: true, proxies: None }));
    for at in 0..cluster.len() {
        cluster.kill(at);
    }
    outcome
}

struct Run<'a> {
    cluster: &'a Cluster,
    load: &'a Load,
    chance: Chance,
    outcome: Outcome,
    /// The next seat that was never used.
    next: usize,
    /// Id → number of its content.
    artifacts: BTreeMap<String, usize>,
}

/// Who is a member, by place.
struct Standing {
    voters: Vec<usize>,
    learners: Vec<usize>,
    leader: usize,
}

fn content(number: usize) -> Vec<u8> {
    (0..ARTIFACT_BYTES).map(|at| (at * 31 + number * 7) as u8).collect()
}

impl Run<'_> {
    fn all(&mut self, changes: usize) -> Result<()> {
        let record = &self.load.shared.record;
        wait_for("the first acknowledged writes", || (record.acks().len() > 20).then_some(()))?;
        for _ in 0..ARTIFACTS {
            self.upload()?;
        }
        for number in 0..changes {
            let change = self.draw()?;
            let told = |run: &Self| format!("change {number} ({})\n{}", run.told(&change), run.cluster.last_words());
            self.carry_out(&change).with_context(|| told(self))?;
            self.outcome.did(change.what);
            let healed = record.now();
            wait_for("an acknowledged write after a change", || record.first_ack_after(healed))
                .with_context(|| told(self))?;
            if let Some((node, how)) = self.cluster.died().first() {
                bail!("replica {node} ended by itself ({how}) at {}", told(self));
            }
            if number % CHANGES_PER_ARTIFACT == CHANGES_PER_ARTIFACT - 1 {
                self.upload()?;
            }
        }
        self.all_readable()
    }

    fn client(&self) -> Result<Client> {
        let config =
            ClientConfig { timeout: PATIENCE, stream_timeout: PATIENCE, ..ClientConfig::new(self.cluster.endpoints()) };
        Client::new(config).context("failed to make a client")
    }

    fn node(&self, at: usize) -> u64 {
        self.cluster.seats()[at].node
    }

    fn told(&self, change: &Change) -> String {
        let old = change.old.map_or_else(String::new, |old| format!(" in the place of {}", self.node(old)));
        format!("{} {}{old}", change.what, self.node(change.at))
    }

    /// The members, by the leader's word.
    fn standing(&self) -> Result<Standing> {
        wait_for("the members by a leader's word", || {
            let members = self.client().ok()?.members().ok()?;
            let of = |role: &str| -> Vec<usize> {
                members.iter().filter(|it| it.role == role).map(|it| (it.node_id - 1) as usize).collect()
            };
            let leader = members.iter().find(|it| it.leader).map(|it| (it.node_id - 1) as usize)?;
            Some(Standing { voters: of("voter"), learners: of("learner"), leader })
        })
    }

    /// A change that can be done now.
    fn draw(&mut self) -> Result<Change> {
        let standing = self.standing()?;
        let room = self.cluster.running().len() < PROCESSES_MAX;
        let others: Vec<usize> = standing.voters.iter().copied().filter(|at| *at != standing.leader).collect();
        loop {
            let what = draw(&mut self.chance, &CHANGES);
            let (possible, from): (bool, &[usize]) = match what {
                Fault::AddLearner => (room, &[]),
                Fault::Replace => (room, &others),
                Fault::AddVoter => (!standing.learners.is_empty(), &standing.learners),
                Fault::Demote => (standing.voters.len() > VOTERS_MIN, &others),
                Fault::Remove if !standing.learners.is_empty() && self.chance.one_in(2) => (true, &standing.learners),
                Fault::Remove => (standing.voters.len() > VOTERS_MIN, &others),
                _ => (true, &others),
            };
            if !possible || (from.is_empty() && what != Fault::AddLearner) {
                continue;
            }
            let whom = if from.is_empty() { None } else { Some(*self.chance.pick(from)) };
            return match (what, whom) {
                (Fault::AddLearner | Fault::Replace, old) => {
                    let at = self.next;
                    self.next += 1;
                    self.cluster.start(at)?;
                    Ok(Change { what, at, old })
                }
                (_, Some(at)) => Ok(Change { what, at, old: None }),
                (_, None) => continue,
            };
        }
    }

    /// Does it, in half of the cases while a replica is killed and comes back; then lets go of who is out.
    fn carry_out(&mut self, change: &Change) -> Result<()> {
        let goes = match change.what {
            Fault::Remove => Some(change.at),
            Fault::Replace => change.old,
            _ => None,
        };
        let endpoints = &self.load.shared.endpoints;
        if let Some(goes) = goes {
            let address = &self.cluster.seats()[goes].client;
            endpoints.set(endpoints.now().into_iter().filter(|it| it != address).collect());
        }
        let victim = self.victim()?;
        let (delay, away) = (self.chance.below(400), self.chance.between(20, 400));
        let cluster = self.cluster;
        let record = &self.load.shared.record;
        let (done, killed) = std::thread::scope(|threads| {
            let killer = threads.spawn(move || -> Result<Option<u64>> {
                let Some((victim, _)) = victim else { return Ok(None) };
                pause_ms(delay);
                let at = record.now();
                cluster.kill(victim);
                pause_ms(away);
                cluster.start(victim)?;
                Ok(Some(at))
            });
            let done = self.until_done(change);
            (done, killer.join())
        });
        let killed = match killed {
            Ok(killed) => killed?,
            Err(_) => bail!("a thread of the harness panicked"),
        };
        done?;
        if let (Some((_, led)), Some(at)) = (victim, killed) {
            self.outcome.kills += 1;
            self.outcome.did(if led { Fault::KillLeader } else { Fault::KillFollower });
            if led {
                let next = wait_for("a write after a kill", || record.first_ack_after(at))?;
                self.outcome.failovers_ms.push((next - at) / 1_000);
            }
        }
        if let Some(goes) = goes {
            self.cluster.kill(goes);
            let data = &self.cluster.seats()[goes].data_dir;
            std::fs::remove_dir_all(data).with_context(|| format!("failed to remove {}", data.display()))?;
        }
        endpoints.set(self.cluster.endpoints());
        Ok(())
    }

    /// Whom to kill meanwhile, and whether he leads.
    fn victim(&mut self) -> Result<Option<(usize, bool)>> {
        if self.chance.one_in(2) {
            return Ok(None);
        }
        let leader = self.standing()?.leader;
        let running = self.cluster.running();
        let victim = if self.chance.one_in(2) { leader } else { *self.chance.pick(&running) };
        Ok(Some((victim, victim == leader)))
    }

    /// Asks until it is done: an answer may be lost with the leader that would have given it.
    fn until_done(&self, change: &Change) -> Result<()> {
        let started = Instant::now();
        loop {
            let Err(error) = self.ask(change)? else { return Ok(()) };
            if matches!(error, ClientError::Precondition(_)) && self.is_done(change)? {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("never came within {} s; said last: {error}", PATIENCE.as_secs());
            }
            // Who became leader meanwhile cannot be taken out, and must hand over first.
            let goes = change.old.unwrap_or(change.at);
            if change.what != Fault::Transfer && self.cluster.leader() == Some(goes) {
                let _ = self.client()?.call(&CLUSTER_TRANSFER, &LeadershipTransferRequest::new(), TRANSFER_TIMEOUT);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Asks once. The outer error is the harness's own.
    fn ask(&self, change: &Change) -> Result<Result<(), ClientError>> {
        let client = self.client()?;
        let seat = &self.cluster.seats()[change.at];
        let mut request = ChangeMemberRequest::new();
        request.set_node_id(seat.node);
        request.set_request_id(request_id());
        if matches!(change.what, Fault::AddLearner | Fault::Replace) {
            request.set_raft_address(seat.raft_public.clone());
            request.set_client_address(seat.client.clone());
        }
        request.set_replaces(change.old.map_or(0, |old| self.node(old)));
        let method = match change.what {
            Fault::AddLearner => &CLUSTER_ADD_LEARNER,
            Fault::AddVoter => &CLUSTER_ADD_VOTER,
            Fault::Demote => &CLUSTER_DEMOTE_VOTER,
            Fault::Remove => &CLUSTER_REMOVE_SERVER,
            Fault::Replace => &CLUSTER_REPLACE_SERVER,
            _ => {
                let mut request = LeadershipTransferRequest::new();
                request.set_to(seat.node);
                return Ok(client.call(&CLUSTER_TRANSFER, &request, TRANSFER_TIMEOUT).map(drop));
            }
        };
        Ok(client.call(method, &request, CHANGE_TIMEOUT).map(drop))
    }

    /// Whether a change that was refused is the state of things: an earlier try did it, or a learner was promoted by itself.
    fn is_done(&self, change: &Change) -> Result<bool> {
        let standing = self.standing()?;
        let (at, member) = (change.at, |at: usize| standing.voters.contains(&at) || standing.learners.contains(&at));
        Ok(match change.what {
            Fault::AddLearner => member(at),
            Fault::AddVoter => standing.voters.contains(&at),
            Fault::Demote => standing.learners.contains(&at),
            // Asked again until it is answered: an id is closed after the configuration changed.
            Fault::Remove | Fault::Replace => false,
            _ => standing.leader == at,
        })
    }

    fn upload(&mut self) -> Result<()> {
        let number = self.artifacts.len();
        let upload = Upload { name: String::new(), kind: "file".to_owned(), ..Upload::default() };
        let put = self.client()?.put_artifact(&upload, &mut Cursor::new(content(number)), &mut |_, _| ());
        self.artifacts.insert(put.context("failed to upload an artifact")?.artifact_id, number);
        Ok(())
    }

    /// Whatever was committed can be read, although those that held it first may be gone.
    fn all_readable(&self) -> Result<()> {
        for (artifact, number) in &self.artifacts {
            let mut bytes = Vec::new();
            let read = self.client()?.get_artifact(artifact, &mut bytes, &mut |_, _| ());
            read.with_context(|| format!("artifact {artifact} cannot be read\n{}", self.cluster.last_words()))?;
            if bytes != content(*number) {
                bail!("artifact {artifact} is another");
            }
        }
        println!("{} replicas have been, {} artifacts are whole", self.next, self.artifacts.len());
        Ok(())
    }
}
