//! `raftgrid-chaos`: see docs/chaos.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use raftgrid_chaos::bits::{self, Campaign, Tools};
use raftgrid_chaos::cluster::{program, Program};
use raftgrid_chaos::disks::{self, Disks};
use raftgrid_chaos::fire::{fire, Outcome, Plan};
use raftgrid_chaos::load::Mix;
use raftgrid_chaos::members::{members, Members};
use raftgrid_chaos::nemesis::Fault;
use raftgrid_chaos::power::{damage, rebuild, record};
use raftgrid_chaos::report;
use raftgrid_chaos::train::Train;
use raftgrid_chaos::upgrade::{upgrade, Upgrade};
use structopt::StructOpt;

/// Kills, partitions, full disks and lost power, on real processes; exits with 1 if anything acknowledged is wrong.
#[derive(Debug, StructOpt)]
#[structopt(name = "raftgrid-chaos", rename_all = "kebab-case")]
struct Options {
    /// Fixes what the harness does (not what the processes make of it).
    #[structopt(long, default_value = "1")]
    seed: u64,
    /// A minute and a half of everything, instead of 200 kills and 1,000 power cuts.
    #[structopt(long)]
    short: bool,
    /// Only these parts: kills, five, members, upgrade, netns, disk, power; or bits, which is no part of all and needs --python and --train.
    #[structopt(long)]
    only: Vec<String>,
    /// Kills of the run with three replicas.
    #[structopt(long)]
    kills: Option<u64>,
    /// Longest time of a run with faults, in seconds.
    #[structopt(long)]
    seconds: Option<u64>,
    /// Instead of all this: three members of this etcd, under the same faults, judged by the same checkers.
    #[structopt(long)]
    etcd: Option<PathBuf>,
    /// Power cuts.
    #[structopt(long)]
    points: Option<usize>,
    /// The program under test; beside this one if it is not given.
    #[structopt(long)]
    controld: Option<PathBuf>,
    /// Changes of the membership.
    #[structopt(long)]
    changes: Option<usize>,
    /// A controld of machine version 1 that an upgrade begins with; beside this one if it is not given (scripts/older-controld.sh makes it).
    #[structopt(long)]
    older: Option<PathBuf>,
    /// Trains beside an upgrade: an interpreter with the package raftgrid. Needs --train.
    #[structopt(long, requires = "train")]
    python: Option<PathBuf>,
    /// The script that is trained.
    #[structopt(long, requires = "python")]
    train: Option<PathBuf>,
    /// Folders that the script finds modules in.
    #[structopt(long)]
    python_path: Option<PathBuf>,
    /// Disturbed runs of bits.
    #[structopt(long)]
    runs: Option<u64>,
    /// Of the runs of bits only this one.
    #[structopt(long)]
    run: Option<u64>,
    /// Where a run that went wrong is kept.
    #[structopt(long)]
    keep: Option<PathBuf>,
}

fn main() {
    match run(&Options::from_args()) {
        Ok(0) => {}
        Ok(wrong) => {
            println!("{wrong} parts went wrong");
            std::process::exit(1);
        }
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(1);
        }
    }
}

fn run(options: &Options) -> Result<usize> {
    let mut suite = Suite::prepare(options)?;
    if let Some(etcd) = &options.etcd {
        suite.etcd(etcd)?;
    }
    let all = options.only.is_empty() && options.etcd.is_none();
    let wanted = |part: &str| all || options.only.iter().any(|only| only == part);
    if wanted("kills") {
        suite.fire("three", |plan| (plan.kills, plan.time) = suite_bounds(options, (30, 14), (200, 1_800)))?;
    }
    if wanted("five") {
        suite.fire("five", |plan| {
            plan.replicas = 5;
            (plan.kills, plan.time) = suite_bounds(options, (20, 9), (60, 420));
        })?;
    }
    if wanted("members") {
        suite.members()?;
    }
    if wanted("upgrade") {
        suite.upgrades()?;
    }
    if wanted("netns") {
        suite.namespaces()?;
    }
    if wanted("disk") {
        suite.disks()?;
    }
    if !suite.outcomes.is_empty() {
        println!("{}", report::clusters(&suite.outcomes));
    }
    let mut wrong = suite.outcomes.iter().filter(|outcome| outcome.kept.is_some()).count();
    // By name only: it needs Python, and has a target of its own.
    if options.only.iter().any(|only| only == "bits") {
        wrong += suite.bits()?;
    }
    if wanted("power") {
        match record::strace_works() {
            Err(error) => println!("skipped: lost power ({error:#})"),
            Ok(()) => wrong += lost_power(options, &suite.controld, &suite.dir.join("power"))?,
        }
    }
    if wrong == 0 && options.keep.is_none() {
        std::fs::remove_dir_all(&suite.dir).context("failed to tidy up")?;
    }
    Ok(wrong)
}

/// (kills, time): the short or the long ones, unless the command line says others.
fn suite_bounds(options: &Options, short: (u64, u64), long: (u64, u64)) -> (u64, Duration) {
    let (kills, seconds) = if options.short { short } else { long };
    (options.kills.unwrap_or(kills), Duration::from_secs(options.seconds.unwrap_or(seconds)))
}

/// Snapshots and compaction happen during the runs.
const SETTINGS: &str = "[raft]\nlog_tail_entries = 500\nsnapshot_threshold = 800\nsnapshot_interval = '2s'\n";

/// Name of the kept older binary: it says of which commit it is.
fn older_name() -> String {
    let commit = include_str!("older.txt").lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    format!("controld-{}", commit.trim())
}

/// The runs with faults, and what they have in common.
struct Suite<'a> {
    options: &'a Options,
    dir: PathBuf,
    controld: PathBuf,
    config: PathBuf,
    outcomes: Vec<Outcome>,
}

impl<'a> Suite<'a> {
    fn prepare(options: &'a Options) -> Result<Self> {
        let dir = match &options.keep {
            Some(dir) => dir.clone(),
            None => std::env::temp_dir().join(format!("raftgrid-chaos-{}", std::process::id())),
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        // A build that goes on beside the run must not change the program under test.
        let built = options.controld.clone().map_or_else(|| program("controld"), Ok)?;
        let controld = dir.join("controld");
        std::fs::copy(&built, &controld).with_context(|| format!("failed to copy {}", built.display()))?;
        println!("seed {}, {}, in {}", options.seed, built.display(), dir.display());
        let config = dir.join("controld.toml");
        std::fs::write(&config, SETTINGS).context("failed to write the settings")?;
        Ok(Self { options, dir, controld, config, outcomes: Vec::new() })
    }

    /// Three replicas on loopback, unless `change` says otherwise.
    fn fire(&mut self, name: &str, change: impl FnOnce(&mut Plan)) -> Result<()> {
        let mut plan = Plan {
            name: name.to_owned(),
            seed: self.options.seed,
            replicas: 3,
            kills: u64::MAX,
            time: Duration::ZERO,
            faults: Fault::LOOPBACK.to_vec(),
            routed: false,
            small_disks: false,
            wrap: Vec::new(),
            must_end: false,
            mix: Mix { registers: 5, submitters: 2, workers: 2, etcd: 0 },
            slower: self.slower(),
            controld: self.controld.clone(),
            config: Some(self.config.clone()),
        };
        change(&mut plan);
        self.outcomes.push(fire(&plan, &self.dir.join(name.replace(' ', "-")))?);
        Ok(())
    }

    fn program(&self, config: &Path) -> Program {
        let flags = vec!["--config".to_owned(), config.display().to_string()];
        Program { file: self.controld.clone(), flags }
    }

    fn slower(&self) -> u32 {
        if self.options.short {
            1
        } else {
            5
        }
    }

    fn members(&mut self) -> Result<()> {
        let plan = Members {
            name: "members".to_owned(),
            seed: self.options.seed,
            changes: self.options.changes.unwrap_or(if self.options.short { 6 } else { 100 }),
            program: self.program(&self.config),
            slower: self.slower(),
        };
        self.outcomes.push(members(&plan, &self.dir.join("members"))?);
        Ok(())
    }

    /// From the present program, held at version 1, to itself; and, in the long form, from a kept older binary.
    fn upgrades(&mut self) -> Result<()> {
        let held = self.dir.join("held.toml");
        std::fs::write(&held, format!("{SETTINGS}machine_version_max = 1\n"))
            .context("failed to write the settings")?;
        let (newer, held) = (self.program(&self.config), self.program(&held));
        let mut plan = Upgrade {
            name: "upgrade, held".to_owned(),
            seed: self.options.seed,
            older: held.clone(),
            newer: newer.clone(),
            refuses: held,
            fenced: None,
            train: None,
            slower: self.slower(),
        };
        self.outcomes.push(upgrade(&plan, &self.dir.join("upgrade-held"))?);
        if self.options.short {
            return Ok(());
        }
        let kept = self.options.older.clone().map_or_else(|| program(&older_name()), Ok);
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => {
                println!("SKIPPED: the upgrade from a kept older binary ({error:#}; scripts/older-controld.sh makes it from the git history)");
                return Ok(());
            }
        };
        println!("the older program: {}", kept.display());
        plan.name = "upgrade, kept binary".to_owned();
        plan.older = Program { file: kept, flags: newer.flags };
        plan.fenced = Some(plan.older.clone());
        plan.train = self.train()?;
        self.outcomes.push(upgrade(&plan, &self.dir.join("upgrade-kept"))?);
        Ok(())
    }

    fn train(&self) -> Result<Option<Train>> {
        let (Some(python), Some(script)) = (&self.options.python, &self.options.train) else {
            println!("skipped: a training job beside the upgrade (no --python and --train)");
            return Ok(None);
        };
        Ok(Some(Train {
            gridctl: program("gridctl")?,
            workerd: program("workerd")?,
            python: python.clone(),
            python_path: self.options.python_path.clone(),
            script: script.clone(),
            rounds: 300,
        }))
    }

    /// The model to the last bit.
    fn bits(&self) -> Result<usize> {
        let options = self.options;
        let (Some(python), Some(script)) = (&options.python, &options.train) else {
            anyhow::bail!("bits needs --python and --train");
        };
        let tools = Tools {
            controld: self.controld.clone(),
            workerd: self.copied("workerd")?,
            gridctl: self.copied("gridctl")?,
            python: python.clone(),
            python_path: options.python_path.clone().unwrap_or_default(),
            script: script.clone(),
            rounds: if options.short { 20 } else { 40 },
        };
        let runs = options.runs.unwrap_or(if options.short { 3 } else { 40 });
        let campaign = Campaign { seed: options.seed, runs, short: options.short, only: options.run };
        bits::prove(&tools, &campaign, &self.dir.join("bits"))
    }

    /// A build that goes on beside the run must not change this one either.
    fn copied(&self, name: &str) -> Result<PathBuf> {
        let copy = self.dir.join(name);
        std::fs::copy(program(name)?, &copy).with_context(|| format!("failed to copy {name}"))?;
        Ok(copy)
    }

    fn etcd(&mut self, etcd: &Path) -> Result<()> {
        let options = self.options;
        self.fire("etcd three", |plan| {
            (plan.controld, plan.config) = (etcd.to_owned(), None);
            plan.mix = Mix { registers: 0, submitters: 0, workers: 0, etcd: 8 };
            (plan.kills, plan.time) = suite_bounds(options, (30, 30), (100, 600));
        })
    }

    fn namespaces(&mut self) -> Result<()> {
        if let Err(error) = raftgrid_chaos::netns::Net::new(3).map(drop) {
            println!("skipped: network namespaces ({error:#})");
            return Ok(());
        }
        let options = self.options;
        self.fire("namespaces", |plan| {
            (plan.routed, plan.faults) = (true, Fault::ROUTED.to_vec());
            (plan.kills, plan.time) = suite_bounds(options, (u64::MAX, 5), (u64::MAX, 120));
        })
    }

    fn disks(&mut self) -> Result<()> {
        let options = self.options;
        let small = self.dir.join("small-disk.toml");
        disks::settings(&small)?;
        match Disks::mount(&[self.dir.join("trial")]).map(drop) {
            Err(error) => println!("skipped: full disks ({error:#})"),
            Ok(()) => self.fire("full disks", |plan| {
                (plan.small_disks, plan.faults, plan.config) = (true, Fault::DISKS.to_vec(), Some(small));
                (plan.kills, plan.time) = suite_bounds(options, (u64::MAX, 7), (u64::MAX, 120));
            })?,
        }
        if let Err(error) = record::strace_works() {
            println!("skipped: slow and failing disks ({error:#})");
            return Ok(());
        }
        self.fire("slow disk", |plan| {
            plan.wrap = disks::slow_fsync(40_000);
            (plan.kills, plan.time) = suite_bounds(options, (u64::MAX, 4), (u64::MAX, 60));
        })?;
        self.fire("failing disk", |plan| {
            (plan.wrap, plan.must_end, plan.faults) = (disks::failing_fsync(40), true, vec![(Fault::StopFollower, 1)]);
            (plan.kills, plan.time) = suite_bounds(options, (u64::MAX, 4), (u64::MAX, 30));
        })
    }
}

/// Cuts, torn tails, flipped bits; how many kinds went wrong.
fn lost_power(options: &Options, controld: &Path, dir: &Path) -> Result<usize> {
    let long = |short: usize, long: usize| if options.short { short } else { long };
    let recording = record::record(controld, dir, options.seed, long(2, 3), long(240, 1_200) as u64)?;
    let events: usize = recording.lives.iter().map(Vec::len).sum();
    println!("recorded: {events} calls, {} acknowledged submissions", recording.acks.len());
    let mut boots = rebuild::rebuild(&recording, options.points.unwrap_or(long(60, 1_200)), options.seed, dir)?;
    boots.push(rebuild::blind(&recording, 24, options.seed)?);
    boots.extend(damage::torn_tail(&recording, long(67, 1), dir)?);
    boots.extend(damage::bit_flips(&recording, long(30, 500), options.seed, dir)?);
    println!("{}", report::boots(&boots));
    Ok(boots.iter().filter(|boots| !boots.wrong.is_empty()).count())
}
