//! `raftgrid-chaos`: see docs/chaos.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use raftgrid_chaos::cluster::program;
use raftgrid_chaos::disks::{self, Disks};
use raftgrid_chaos::fire::{fire, Outcome, Plan};
use raftgrid_chaos::load::Mix;
use raftgrid_chaos::nemesis::Fault;
use raftgrid_chaos::power::{damage, rebuild, record};
use raftgrid_chaos::report;
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
    /// Only these parts: kills, five, netns, disk, power.
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
    let text = "[raft]\nlog_tail_entries = 500\nsnapshot_threshold = 800\nsnapshot_interval = '2s'\n";
    std::fs::write(&config, text).context("failed to write the settings")?;
    let all = options.only.is_empty() && options.etcd.is_none();
    let wanted = |part: &str| all || options.only.iter().any(|only| only == part);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mix = Mix { registers: 5, submitters: 2, workers: 2, etcd: 0 };
    let plan = |name: &str, replicas: usize, kills: u64, seconds: u64, faults: &[(Fault, u64)]| Plan {
        name: name.to_owned(),
        seed: options.seed,
        replicas,
        kills: options.kills.unwrap_or(kills),
        time: Duration::from_secs(options.seconds.unwrap_or(seconds)),
        faults: faults.to_vec(),
        routed: false,
        small_disks: false,
        wrap: Vec::new(),
        mix,
        slower: if options.short { 1 } else { 5 },
        controld: controld.clone(),
        config: Some(config.clone()),
    };
    let long = |short: u64, long: u64| if options.short { short } else { long };
    if let Some(etcd) = &options.etcd {
        let mut fair = plan("etcd, three", 3, long(30, 100), long(30, 600), &Fault::LOOPBACK);
        (fair.controld, fair.config) = (etcd.clone(), None);
        fair.mix = Mix { registers: 0, submitters: 0, workers: 0, etcd: 8 };
        outcomes.push(fire(&fair, &dir.join("etcd"))?);
    } else if wanted("kills") {
        let plan = plan("three", 3, long(30, 200), long(14, 1_800), &Fault::LOOPBACK);
        outcomes.push(fire(&plan, &dir.join("three"))?);
    }
    if wanted("five") {
        let plan = plan("five", 5, long(20, 60), long(9, 420), &Fault::LOOPBACK);
        outcomes.push(fire(&plan, &dir.join("five"))?);
    }
    if wanted("netns") {
        match raftgrid_chaos::netns::Net::new(3).map(drop) {
            Err(error) => println!("skipped: network namespaces ({error:#})"),
            Ok(()) => {
                let mut plan = plan("namespaces", 3, u64::MAX, long(6, 120), &Fault::ROUTED);
                plan.routed = true;
                outcomes.push(fire(&plan, &dir.join("namespaces"))?);
            }
        }
    }
    if wanted("disk") {
        let small = dir.join("small-disk.toml");
        disks::settings(&small)?;
        let mut full = plan("full disks", 3, u64::MAX, long(7, 120), &Fault::DISKS);
        (full.small_disks, full.config) = (true, Some(small));
        match Disks::mount(&[dir.join("trial")]).map(drop) {
            Err(error) => println!("skipped: full disks ({error:#})"),
            Ok(()) => outcomes.push(fire(&full, &dir.join("full-disks"))?),
        }
        match record::strace_works() {
            Err(error) => println!("skipped: slow and failing disks ({error:#})"),
            Ok(()) => {
                let mut slow = plan("slow disk", 3, u64::MAX, long(4, 60), &Fault::LOOPBACK);
                slow.wrap = disks::slow_fsync(40_000);
                outcomes.push(fire(&slow, &dir.join("slow-disk"))?);
                let mut failing = plan("failing disk", 3, u64::MAX, long(4, 30), &[(Fault::StopFollower, 1)]);
                failing.wrap = disks::failing_fsync(40);
                outcomes.push(fire(&failing, &dir.join("failing-disk"))?);
            }
        }
    }
    if !outcomes.is_empty() {
        println!("{}", report::clusters(&outcomes));
    }
    let mut wrong = outcomes.iter().filter(|outcome| outcome.kept.is_some()).count();
    if wanted("power") {
        match record::strace_works() {
            Err(error) => println!("skipped: lost power ({error:#})"),
            Ok(()) => wrong += lost_power(options, &controld, &dir.join("power"))?,
        }
    }
    if wrong == 0 && options.keep.is_none() {
        std::fs::remove_dir_all(&dir).context("failed to tidy up")?;
    }
    Ok(wrong)
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
