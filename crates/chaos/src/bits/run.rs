//! One run: the job, the kills, the points, and the account in the end.
//!
//! One thread looks after the processes: it starts again who has died, kills whose turn it is, and arms. Another one is the client: it hands
//! the job in and looks how far it is. Progress, not time, says when something is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use raftgrid_client::{Client, ClientConfig};
use raftgrid_crashpoint::Point;
use raftgrid_manifest::MACHINE_VERSION;
use raftgrid_proto::v1::{GetJobRequest, JobPhase, Task, TaskStatus};
use raftgrid_rpc::methods::GET_JOB;

use super::account::{self, Account};
use super::crew::{Arm, Crew, End, Who};
use super::plan::{reached, Kind, Plan, Reached};
use super::python::{self, Orders, PythonPoint};
use super::{Tools, JOB, SETTINGS};
use crate::cluster::{Cluster, Program};
use crate::limits::{
    AWAY_ROUNDS, FORCE_AGAIN_ROUNDS, JOB_LOOK_TIMEOUT, LOOK_PAUSE, RESTART_PAUSE_MS_MAX, RUN_PATIENCE,
};

/// What came of a run.
pub struct Outcome {
    /// Seconds from the first process to the end of the job.
    pub seconds: u64,
    /// Processes killed from outside.
    pub kills: BTreeMap<Kind, u64>,
    /// Deaths at points.
    pub hits: BTreeMap<Point, u64>,
    /// Points that some process was armed with.
    pub armed: BTreeSet<Point>,
    /// Deaths of Python processes at points, and whether one was ordered: every point is in it.
    pub python: BTreeMap<PythonPoint, (bool, u64)>,
    /// What the cluster says in the end, and holds.
    pub account: Account,
}

/// What the client sees.
#[derive(Clone, Debug, Default)]
struct Progress {
    committed: u64,
    over: bool,
    failed: Option<String>,
    doing: String,
}

/// Runs the plan in `dir`.
pub fn run(tools: &Tools, plan: &Plan, dir: &Path, job: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let config = dir.join("controld.toml");
    std::fs::write(&config, SETTINGS).context("failed to write the settings")?;
    let cluster = Cluster::new(&tools.controld, Cluster::loopback(dir, plan.replicas)?)?;
    let flags = vec!["--config".to_owned(), config.display().to_string()];
    for at in 0..cluster.len() {
        cluster.set_program(at, Program { file: tools.controld.clone(), flags: flags.clone() });
    }
    let orders = Orders::new(dir.join("python"))?;
    let crew = Crew::new(tools, &cluster, dir, plan.workers, &orders);
    let mut run = Run {
        plan: plan.clone(),
        cluster: &cluster,
        crew,
        orders,
        rounds: tools.rounds,
        unhit: plan.replica_points.iter().chain(&plan.worker_points).copied().collect(),
        forced: [None, None],
        away: None,
        kills: BTreeMap::new(),
        hits: BTreeMap::new(),
        armed: BTreeSet::new(),
        ordered: BTreeSet::new(),
    };
    let started = Instant::now();
    let trained = run.train(tools, job).map(|()| started.elapsed().as_secs());
    let judged = trained.and_then(|seconds| Ok((seconds, run.account(tools, dir)?)));
    // Behind the cause: they are long.
    let (seconds, account) = judged.map_err(|error| anyhow!("{error:#}\n{}", run.crew.last_words()))?;
    let python = PythonPoint::EACH.map(|point| (point, (run.ordered.contains(&point), run.orders.taken(point))));
    let Run { kills, hits, armed, .. } = run;
    Ok(Outcome { seconds, kills, hits, armed, python: python.into_iter().collect(), account })
}

struct Run<'a> {
    plan: Plan,
    cluster: &'a Cluster,
    crew: Crew<'a>,
    orders: Orders,
    rounds: u64,
    /// Points of this run that nobody has come to yet, in their order.
    unhit: Vec<Point>,
    /// Replicas and workers: the point that all were started anew for, and when.
    forced: [Option<(Point, u64)>; 2],
    /// A replica that is kept down, and until when.
    away: Option<(usize, u64)>,
    kills: BTreeMap<Kind, u64>,
    hits: BTreeMap<Point, u64>,
    armed: BTreeSet<Point>,
    ordered: BTreeSet<PythonPoint>,
}

impl Run<'_> {
    /// Until the job is done and its tasks are over.
    fn train(&mut self, tools: &Tools, job: &Path) -> Result<()> {
        for who in self.crew.everyone() {
            self.start(who, 0)?;
        }
        let (progress, stop) = (Mutex::new(Progress::default()), AtomicBool::new(false));
        let (cluster, workers) = (self.cluster, self.plan.workers);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if let Err(error) = follow(tools, cluster, job, workers, &progress, &stop) {
                    note(&progress, |progress| progress.failed = Some(format!("{error:#}")));
                }
            });
            let done = self.look_after(&progress);
            stop.store(true, Ordering::SeqCst);
            done
        })
    }

    /// Everything is killed once more; then the replicas, unarmed, say what they have.
    fn account(&mut self, tools: &Tools, dir: &Path) -> Result<Account> {
        self.kill_all();
        for at in 0..self.cluster.len() {
            self.crew.start(Who::Replica(at), None)?;
        }
        self.cluster.settled()?;
        account::account(tools, self.cluster, &self.crew.acks_files(), dir)
    }

    fn look_after(&mut self, progress: &Mutex<Progress>) -> Result<()> {
        let began = Instant::now();
        loop {
            let seen = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(why) = seen.failed {
                bail!("{why}");
            }
            if seen.over {
                return Ok(());
            }
            if began.elapsed() > RUN_PATIENCE {
                let (limit, doing, at) = (RUN_PATIENCE.as_secs(), seen.doing, seen.committed);
                bail!("the job is not done after {limit} s: {doing}, {at} rounds of {} are committed", self.rounds);
            }
            self.revive(seen.committed)?;
            self.trouble(seen.committed)?;
            self.force(seen.committed)?;
            self.send_away(seen.committed)?;
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Takes note of who died, and starts whose time has come.
    fn revive(&mut self, committed: u64) -> Result<()> {
        for who in self.crew.everyone() {
            if let Some(end) = self.crew.ended(who) {
                self.note_end(who, end)?;
                self.restart_later(who);
            }
            if self.crew.is_due(who, Instant::now()) {
                self.start(who, committed)?;
            }
        }
        Ok(())
    }

    /// True: it was killed from here, not at its point.
    fn note_end(&mut self, who: Who, end: End) -> Result<bool> {
        match end {
            End::AtPoint(point) => {
                *self.hits.entry(point).or_default() += 1;
                self.unhit.retain(|unhit| *unhit != point);
                Ok(false)
            }
            End::Killed => Ok(true),
            End::Other(status) => bail!("{who:?} ended by itself: {status}"),
        }
    }

    fn restart_later(&mut self, who: Who) {
        let pause = Duration::from_millis(self.plan.chance.below(RESTART_PAUSE_MS_MAX));
        self.crew.due_at(who, Instant::now() + pause);
    }

    fn start(&mut self, who: Who, committed: u64) -> Result<()> {
        let arm = self.next_arm(who, committed);
        self.start_armed(who, arm)
    }

    fn start_armed(&mut self, who: Who, arm: Option<Arm>) -> Result<()> {
        self.armed.extend(arm.map(|arm| arm.point));
        self.crew.start(who, arm)
    }

    /// The first point of the run that is still to be come to.
    fn next_arm(&mut self, who: Who, committed: u64) -> Option<Arm> {
        let points = self.points_of(who);
        let suits = |point: &Point| match reached(*point).0 {
            Reached::AtFirst => committed == 0,
            Reached::InRounds => true,
            Reached::AfterAway => false,
        };
        let point = self.unhit.iter().copied().find(|point| points.contains(point) && suits(point))?;
        let count = self.plan.chance.between(1, reached(point).1 + 1);
        Some(Arm { point, count })
    }

    fn points_of(&self, who: Who) -> Vec<Point> {
        match who {
            Who::Replica(_) => self.plan.replica_points.clone(),
            Who::Worker(_) => self.plan.worker_points.clone(),
        }
    }

    /// Kills whose turn it is, and lays orders for Python processes.
    fn trouble(&mut self, committed: u64) -> Result<()> {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.plan.python).into_iter().partition(|it| it.0 <= committed);
        self.plan.python = later;
        for (_, point) in due {
            self.orders.give(point)?;
            self.ordered.insert(point);
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.plan.kills).into_iter().partition(|it| it.0 <= committed);
        self.plan.kills = later;
        for (at, kind) in due {
            // Nobody leads just now, or no Python runs: the next look tries again.
            if !self.kill_one(kind)? {
                self.plan.kills.push((at, kind));
            }
        }
        Ok(())
    }

    fn kill_one(&mut self, kind: Kind) -> Result<bool> {
        let victim = match kind {
            Kind::Leader => self.cluster.leader().map(Who::Replica),
            Kind::Follower => self.a_follower().map(Who::Replica),
            Kind::Worker => {
                let running: Vec<Who> =
                    (0..self.plan.workers).map(Who::Worker).filter(|who| self.crew.runs(*who)).collect();
                (!running.is_empty()).then(|| *self.plan.chance.pick(&running))
            }
            Kind::Python => {
                let pids = self.crew.pythons();
                let killed = !pids.is_empty() && python::kill(*self.plan.chance.pick(&pids));
                *self.kills.entry(kind).or_default() += u64::from(killed);
                return Ok(killed);
            }
            Kind::All => {
                self.kill_all();
                for who in self.crew.everyone() {
                    if !self.is_away(who) {
                        self.restart_later(who);
                    }
                }
                return Ok(true);
            }
        };
        let Some(who) = victim else { return Ok(false) };
        self.kill(who, kind)?;
        self.restart_later(who);
        Ok(true)
    }

    /// Counts it, unless it was at its point a moment before.
    fn kill(&mut self, who: Who, kind: Kind) -> Result<()> {
        if let Some(end) = self.crew.kill(who) {
            if self.note_end(who, end)? {
                *self.kills.entry(kind).or_default() += 1;
            }
        }
        Ok(())
    }

    fn kill_all(&mut self) {
        for who in self.crew.everyone() {
            // It fails for who ended by himself only, which a kill never tells.
            let _ = self.kill(who, Kind::All);
        }
    }

    fn is_away(&self, who: Who) -> bool {
        self.away.is_some_and(|(at, _)| who == Who::Replica(at))
    }

    fn a_follower(&mut self) -> Option<usize> {
        let leader = self.cluster.leader()?;
        let followers: Vec<usize> = self.cluster.running().into_iter().filter(|at| *at != leader).collect();
        (!followers.is_empty()).then(|| *self.plan.chance.pick(&followers))
    }

    /// In the last third, whatever nobody came to is armed everywhere at once: who leads, who follows and who works all have it.
    fn force(&mut self, committed: u64) -> Result<()> {
        if committed < self.rounds * 3 / 5 {
            return Ok(());
        }
        let (replicas, workers): (Vec<Who>, Vec<Who>) =
            self.crew.everyone().into_iter().partition(|who| matches!(who, Who::Replica(_)));
        for (side, everyone) in [replicas, workers].into_iter().enumerate() {
            let points = self.points_of(everyone[0]);
            let open = |point: &Point| points.contains(point) && reached(*point).0 == Reached::InRounds;
            let Some(point) = self.unhit.iter().copied().find(open) else { continue };
            let waits =
                self.forced[side].is_some_and(|(forced, at)| forced == point && committed < at + FORCE_AGAIN_ROUNDS);
            if waits {
                continue;
            }
            self.forced[side] = Some((point, committed));
            let kind = |who: &Who| if matches!(who, Who::Replica(_)) { Kind::All } else { Kind::Worker };
            for who in everyone {
                if self.is_away(who) {
                    continue;
                }
                self.kill(who, kind(&who))?;
                self.start_armed(who, Some(Arm { point, count: 1 }))?;
            }
            // What ends with a process's end needs one.
            if matches!(point, Point::ResultBeforeReport | Point::ResultReported) {
                self.plan.kills.push((committed + 1, Kind::Python));
            }
        }
        Ok(())
    }

    /// A follower is kept down until the log behind it is gone, and comes back armed with what a snapshot leads past.
    fn send_away(&mut self, committed: u64) -> Result<()> {
        if let Some((at, until)) = self.away {
            if committed >= until {
                self.away = None;
                let point = self.unhit.iter().copied().find(|point| reached(*point).0 == Reached::AfterAway);
                self.start_armed(Who::Replica(at), point.map(|point| Arm { point, count: 1 }))?;
            }
            return Ok(());
        }
        let wanted = self.unhit.iter().any(|point| reached(*point).0 == Reached::AfterAway);
        let returned = self.crew.everyone().into_iter().any(|who| {
            self.crew.runs(who) && self.crew.armed(who).is_some_and(|arm| reached(arm.point).0 == Reached::AfterAway)
        });
        if wanted && !returned && committed >= 2 && committed + AWAY_ROUNDS < self.rounds {
            if let Some(at) = self.a_follower() {
                self.kill(Who::Replica(at), Kind::Follower)?;
                self.away = Some((at, committed + AWAY_ROUNDS));
            }
        }
        Ok(())
    }
}

fn note(progress: &Mutex<Progress>, change: impl FnOnce(&mut Progress)) {
    change(&mut progress.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The client: waits for the newest machine version, hands the job in, looks how far it is.
fn follow(
    tools: &Tools,
    cluster: &Cluster,
    job: &Path,
    workers: usize,
    progress: &Mutex<Progress>,
    stop: &AtomicBool,
) -> Result<()> {
    let doing = |what: &str| note(progress, |progress| progress.doing = what.to_owned());
    let stopped = || stop.load(Ordering::SeqCst);
    doing("the replicas rise to the newest machine version");
    let newest = |at| cluster.state(at).is_some_and(|state| state.machine_version == MACHINE_VERSION);
    while !stopped() && !(0..cluster.len()).all(newest) {
        std::thread::sleep(LOOK_PAUSE);
    }
    doing("the job is handed in");
    let endpoints: Vec<String> = cluster.seats().iter().map(|seat| seat.client.clone()).collect();
    while !stopped() && !submit(tools, &endpoints, job, workers)? {
        std::thread::sleep(LOOK_PAUSE);
    }
    doing("it trains");
    let client = Client::new(ClientConfig::new(endpoints)).context("failed to make a client")?;
    let mut request = GetJobRequest::new();
    request.set_job_id(JOB.to_owned());
    while !stopped() {
        std::thread::sleep(LOOK_PAUSE);
        // Nobody leads just now.
        let Ok(answer) = client.call(&GET_JOB, &request, JOB_LOOK_TIMEOUT) else { continue };
        let over = |task: &Task| matches!(task.get_status(), TaskStatus::COMPLETED | TaskStatus::FAILED);
        match answer.get_job().get_phase() {
            JobPhase::JOB_DONE if answer.get_tasks().iter().all(over) => {
                note(progress, |progress| progress.over = true)
            }
            JobPhase::JOB_DONE => doing("it is done, its tasks end"),
            JobPhase::JOB_INIT | JobPhase::JOB_RUNNING | JobPhase::JOB_PAUSED => {}
            other => bail!("the job is {other:?}: {}", answer.get_job().get_reason()),
        }
        let committed = answer.get_job().get_rounds_committed();
        note(progress, |progress| progress.committed = progress.committed.max(committed));
    }
    Ok(())
}

/// False: it is to be tried again. The name makes it one job, however often.
fn submit(tools: &Tools, endpoints: &[String], job: &Path, workers: usize) -> Result<bool> {
    let mut command = Command::new(&tools.gridctl);
    command.args(["job", "submit"]).arg(job).args(["--set", &format!("train.workers={workers}")]);
    command.args(["--timeout", "5s", "--endpoints", &endpoints.join(",")]).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("failed to start {}", tools.gridctl.display()))?;
    match output.status.code() {
        Some(0) => Ok(true),
        // Wrong usage does not become right.
        Some(2) => bail!("gridctl job submit: {}", String::from_utf8_lossy(&output.stderr).trim()),
        _ => Ok(false),
    }
}

/// An undisturbed run, with one worker.
pub fn undisturbed(tools: &Tools, dir: &Path, job: &Path, seed: u64) -> Result<Outcome> {
    let plan = Plan {
        number: 0,
        workers: 1,
        replicas: 3,
        replica_points: Vec::new(),
        worker_points: Vec::new(),
        kills: Vec::new(),
        python: Vec::new(),
        chance: crate::chance::Chance::new(seed, 1_000),
    };
    run(tools, &plan, dir, job)
}
