//! Random command sequences: invariants hold after every entry, a replay gives the same bytes, a snapshot with the tail is the full replay.

mod common;

use common::*;
use proptest::prelude::*;
use raftgrid_manifest::{command, command_for, encode_batch, views, MemRows, MACHINE_VERSION};
use raftgrid_proto::v1::{Command_oneof_kind as Kind, *};

/// What a random step does. Small numbers, so that steps meet on the same tasks, shards and attempts.
#[derive(Clone, Debug)]
enum Step {
    Submit(u8, u8, bool),
    Assign(Vec<(u8, u8)>),
    Start(u8, u8),
    Report(u8, u8, u8),
    Expire(u8, u8),
    Cancel(u8, bool),
    Retry(u8),
    Hold(u8, u8),
    Queue(u8, u8),
    Gang(u8, Vec<(u8, u8)>),
    Preempt(u8, u8),
    Register(u8, u8),
    Status(u8, u8),
    Deregister(u8),
    Job(u8),
    CancelJob(u8),
    Fail(u8, bool),
    Ready(u8, u8),
    Lease(u8, u8, u8, bool),
    Gradient(u8, u8, u8, u8),
    Reject(u8, u8, u8),
    Model(u8, bool),
    Unused(bool),
    Later(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0_u8..8;
    prop_oneof![
        2 => (n(), n(), any::<bool>()).prop_map(|(t, p, r)| Step::Submit(t, p, r)),
        6 => prop::collection::vec((n(), n()), 1..3).prop_map(Step::Assign),
        1 => (n(), n()).prop_map(|(t, e)| Step::Start(t, e)),
        3 => (n(), n(), n()).prop_map(|(t, e, s)| Step::Report(t, e, s)),
        2 => (n(), n()).prop_map(|(t, e)| Step::Expire(t, e)),
        1 => (n(), any::<bool>()).prop_map(|(t, c)| Step::Cancel(t, c)),
        1 => n().prop_map(Step::Retry),
        2 => (n(), n()).prop_map(|(t, how)| Step::Hold(t, how)),
        1 => (n(), n()).prop_map(|(q, most)| Step::Queue(q, most)),
        4 => (n(), prop::collection::vec((n(), n()), 1..4)).prop_map(|(g, pairs)| Step::Gang(g, pairs)),
        1 => (n(), n()).prop_map(|(t, e)| Step::Preempt(t, e)),
        2 => (n(), n()).prop_map(|(a, b)| Step::Register(a, b)),
        1 => (n(), n()).prop_map(|(a, s)| Step::Status(a, s)),
        1 => n().prop_map(Step::Deregister),
        3 => n().prop_map(Step::Job),
        1 => n().prop_map(Step::CancelJob),
        1 => (n(), any::<bool>()).prop_map(|(j, p)| Step::Fail(j, p)),
        1 => (n(), n()).prop_map(|(t, e)| Step::Ready(t, e)),
        3 => (n(), n(), n(), any::<bool>()).prop_map(|(t, s, e, v)| Step::Lease(t, s, e, v)),
        12 => (n(), n(), n(), n()).prop_map(|(t, s, e, b)| Step::Gradient(t, s, e, b)),
        1 => (n(), n(), n()).prop_map(|(t, s, e)| Step::Reject(t, s, e)),
        8 => (n(), any::<bool>()).prop_map(|(j, w)| Step::Model(j, w)),
        1 => any::<bool>().prop_map(Step::Unused),
        2 => (0_u16..2_000).prop_map(Step::Later),
    ]
}

/// Runs steps against a world; what a step names that is not there is refused by the machine, not avoided here.
#[derive(Default)]
struct Runner {
    world: World,
    names: u64,
}

fn job(n: u8) -> &'static str {
    ["one", "two"][usize::from(n % 2)]
}

fn task(n: u8) -> String {
    match n % 8 {
        0 | 1 => format!("t{}", n % 2),
        7 => member("gang", 0),
        6 => member("gang", 1),
        n => trainer(job(n), u32::from(n / 2) % 2),
    }
}

impl Runner {
    /// The open epoch mostly, else an old or a made-up one.
    fn epoch(&self, task_id: &str, how: u8) -> u64 {
        let row = views::task_row(&self.world.rows, task_id).expect("memory").unwrap_or_default();
        match how {
            0 => 0,
            1 => row.get_task().lease_epoch,
            2 => row.open_epoch + 1,
            _ => row.open_epoch,
        }
    }

    /// The round that is open now, of the job of this trainer.
    fn round(&self, job: &str) -> u64 {
        views::get_job(&self.world.rows, job).expect("memory").map_or(0, |job| job.rounds_committed)
    }

    fn run(&mut self, step: &Step) {
        let kinds = self.kinds(step);
        self.names += 1;
        let commands = kinds.into_iter().map(|kind| match step {
            Step::Submit(_, _, true) => command_for("ann", &uuid(self.world.now_ms, self.names % 3), kind),
            _ => command(kind),
        });
        let payload = encode_batch(self.world.now_ms, commands.collect());
        self.world.entry(vec![payload]);
    }

    fn kinds(&mut self, step: &Step) -> Vec<Kind> {
        let node = |n: u8| NODES[usize::from(n) % NODES.len()].to_owned();
        let incarnation =
            |id: &str| views::get_node(&self.world.rows, id).expect("memory").map_or(0, |node| node.incarnation);
        match step {
            Step::Submit(t, priority, _) => {
                vec![submit(&format!("t{}", t % 3), |spec| {
                    spec.priority = i32::from(priority / 7);
                    if t % 3 > 0 {
                        spec.queue = "q".to_owned();
                    }
                })]
            }
            Step::Assign(pairs) => {
                let pairs: Vec<(String, String)> = pairs.iter().map(|(t, n)| (task(*t), node(*n))).collect();
                let pairs: Vec<(&str, &str)> = pairs.iter().map(|(t, n)| (t.as_str(), n.as_str())).collect();
                vec![assign(&pairs)]
            }
            Step::Start(t, e) => vec![start(&task(*t), self.epoch(&task(*t), *e))],
            Step::Report(t, e, s) => {
                let status = if *s < 4 { TaskStatus::COMPLETED } else { TaskStatus::FAILED };
                vec![report(&task(*t), self.epoch(&task(*t), *e), status, |r| {
                    r.infrastructure = *s == 7;
                    r.result_data = format!("{}", s % 2);
                })]
            }
            Step::Expire(t, e) => vec![expire(&task(*t), self.epoch(&task(*t), *e))],
            Step::Cancel(t, confirmed) => vec![cancel(&format!("t{}", t % 3), *confirmed)],
            Step::Retry(t) => vec![retry(&task(*t))],
            Step::Hold(t, how) => vec![match how {
                0..=2 => suspend(&task(*t)),
                3..=5 => resume(&task(*t)),
                6 => requeue(&task(*t)),
                _ => set_priority(&task(*t), i32::from(*t)),
            }],
            Step::Queue(7, _) => vec![delete_queue("q")],
            Step::Queue(_, most) => vec![put_queue("q", |queue| queue.max_running = u32::from(most % 4))],
            Step::Gang(0, _) => {
                let mut spec = gang_spec("gang", 2, 3);
                spec.mut_task().queue = "q".to_owned();
                vec![put_queue("q", |_| ()), submit_job(spec)]
            }
            Step::Gang(_, pairs) => {
                let pairs: Vec<(String, String)> =
                    pairs.iter().map(|(i, n)| (member("gang", u32::from(i % 3)), node(*n))).collect();
                let pairs: Vec<(&str, &str)> = pairs.iter().map(|(t, n)| (t.as_str(), n.as_str())).collect();
                vec![assign(&pairs)]
            }
            Step::Preempt(t, e) => vec![preempt(&task(*t), self.epoch(&task(*t), *e))],
            Step::Register(n, boot) => {
                let mut named = Node { node_id: node(*n), ..Node::default() };
                named.mut_capacity().slots = 1 + u32::from(boot % 4);
                let mut register = RegisterNode { boot_nonce: u64::from(boot / 4), ..RegisterNode::default() };
                register.set_node(named);
                vec![Kind::register_node(register)]
            }
            Step::Status(n, s) => vec![Kind::node_status_change(NodeStatusChange {
                incarnation: incarnation(&node(*n)),
                node_id: node(*n),
                status: if *s == 0 { NodeStatus::UNKNOWN } else { NodeStatus::HEALTHY },
                ..NodeStatusChange::default()
            })],
            Step::Deregister(n) => vec![Kind::deregister(Deregister {
                incarnation: incarnation(&node(*n)),
                node_id: node(*n),
                ..Deregister::default()
            })],
            Step::Job(n) => self.new_job(*n),
            Step::CancelJob(n) if *n < 2 => {
                vec![Kind::cancel_job(CancelJob { job_id: job(*n).into(), ..CancelJob::default() })]
            }
            Step::CancelJob(_) => Vec::new(),
            Step::Fail(n, paused) if *n < 2 => {
                let phase = if *paused { JobPhase::JOB_PAUSED } else { JobPhase::JOB_FAILED };
                vec![Kind::fail_job(FailJob { job_id: job(*n).into(), phase, ..FailJob::default() })]
            }
            Step::Fail(..) => Vec::new(),
            Step::Ready(t, e) => {
                let (task_id, epoch) = (task(*t), self.epoch(&task(*t), *e));
                vec![Kind::trainer_ready(TrainerReady { task_id, epoch, ..TrainerReady::default() })]
            }
            Step::Lease(t, s, e, verify) => {
                let leases = vec![lease(u32::from(s % 2), &task(*t), self.epoch(&task(*t), *e), *verify)];
                vec![lease_shards(job(*t), self.round(job(*t)), leases)]
            }
            Step::Gradient(t, s, e, bytes) => self.gradient(*t, *s, *e, *bytes),
            Step::Reject(t, s, e) => {
                let (round, epoch) = (self.round(job(*t)), self.epoch(&task(*t), *e));
                let Kind::reject_gradient(mut reject) = reject(job(*t), round, u32::from(s % 2), 0, epoch, "n") else {
                    unreachable!()
                };
                reject.task_id = task(*t);
                vec![Kind::reject_gradient(reject)]
            }
            Step::Model(n, wrong) => self.model(job(*n), *wrong && *n == 0),
            Step::Unused(confirmed) => {
                let begun = self.world.begin("", "file", &format!("file {}", self.names));
                vec![delete_artifact(begun, false), delete_artifact(begun, *confirmed)]
            }
            Step::Later(ms) => {
                self.world.now_ms += u64::from(*ms);
                Vec::new()
            }
        }
    }

    /// A job, and its trainers placed where there is room.
    fn new_job(&mut self, n: u8) -> Vec<Kind> {
        let mut spec = train_spec(job(n));
        spec.mut_train().quorum = u32::from(n % 2);
        spec.mut_train().retain_rounds = 2;
        let mut kinds = vec![submit_job(spec)];
        kinds.extend((0..2).map(|i| assign(&[(&trainer(job(n), i), NODES[i as usize])])));
        kinds
    }

    fn gradient(&mut self, t: u8, s: u8, e: u8, bytes: u8) -> Vec<Kind> {
        let job = job(t);
        if views::get_job(&self.world.rows, job).expect("memory").is_none() {
            return Vec::new();
        }
        let newest = self.round(job);
        let round = if bytes == 7 { newest.saturating_sub(1) } else { newest };
        let shard = u32::from(s % 2);
        // Mostly the same bytes for a (round, shard), sometimes others.
        let text = if bytes == 6 { format!("{job} x{t}") } else { format!("{job} g{round}.{shard}") };
        let artifact = self.world.begin(job, "gradient", &text);
        let epoch = self.epoch(&task(t), e);
        vec![gradient(job, round, shard, &task(t), epoch, artifact, &text)]
    }

    fn model(&mut self, job: &str, wrong: bool) -> Vec<Kind> {
        let Some(now) = views::get_job(&self.world.rows, job).expect("memory") else { return Vec::new() };
        if !now.has_model {
            let artifact = self.world.begin(job, "model", "m0");
            return vec![model_0(job, self.epoch(&trainer(job, 0), 7), artifact, "m0")];
        }
        if views::get_round(&self.world.rows, job, now.rounds_committed).expect("memory").is_none() {
            return Vec::new();
        }
        let mut model = self.world.next_model(job, now.rounds_committed);
        if wrong {
            model.inputs_hash[0] ^= 1;
        }
        vec![Kind::commit_model(model)]
    }
}

fn run(steps: &[Step]) -> Runner {
    let mut runner = Runner { world: World::with_nodes(), names: 0 };
    let newest = SetMachineVersion { version: MACHINE_VERSION, ..SetMachineVersion::default() };
    runner.world.ok(Kind::set_machine_version(newest));
    steps.iter().for_each(|step| runner.run(step));
    runner
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    /// `World::entry` checks every invariant after every entry; the assertions of the machine watch the steps between two states.
    #[test]
    fn random_commands_keep_every_invariant(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps);
    }

    #[test]
    fn a_replay_and_a_snapshot_with_the_tail_give_the_same_rows_and_digest(
        steps in prop::collection::vec(step(), 1..80),
        cut in 0.0..1.0_f64,
    ) {
        let world = run(&steps).world;
        let mut full = MemRows::default();
        let changes = replay(&mut full, 1, &world.log);
        prop_assert_eq!(&full, &world.rows);
        prop_assert_eq!(replay(&mut MemRows::default(), 1, &world.log), changes, "the changes are the same bytes");

        let at = (world.log.len() as f64 * cut) as usize;
        let mut before = MemRows::default();
        replay(&mut before, 1, &world.log[..at]);
        let mut restored = MemRows::default();
        let snapshot: Vec<_> = before
            .iter()
            .map(|(table, key, value)| raftgrid_manifest::Change { table, key: key.to_vec(), value: Some(value.to_vec()) })
            .collect();
        restored.write(&snapshot);
        replay(&mut restored, 1 + at as u64, &world.log[at..]);
        prop_assert_eq!(&restored, &full);
        prop_assert_eq!(views::digest(&restored).expect("memory"), views::digest(&full).expect("memory"));
    }
}

/// The steps above are worth something only if they reach the interesting places: this fails if they stop doing so.
#[test]
fn random_commands_reach_committed_rounds_mismatches_and_rejections() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = prop::collection::vec(step(), 120);
    let (mut rounds, mut done, mut mismatches, mut compared, mut stale, mut rejected) = (0, 0, 0, 0, 0, 0);
    let (mut suspended, mut gangs, mut taken_down) = (0, 0, 0);
    for _ in 0..80 {
        let world = run(&steps.new_tree(&mut runner).expect("a strategy without filters").current()).world;
        for n in 0..8 {
            let task = views::get_task(&world.rows, &task(n)).expect("memory");
            suspended += u64::from(task.is_some_and(|task| task.phase == Phase::PHASE_SUSPENDED));
        }
        let gang = views::get_job(&world.rows, "gang").expect("memory").unwrap_or_default();
        gangs += gang.gang_generation;
        taken_down += u64::from(gang.gang_user_failures + gang.gang_infrastructure_failures);
        for name in ["one", "two"] {
            let Some(job) = views::get_job(&world.rows, name).expect("memory") else { continue };
            rounds += job.rounds_committed;
            done += u64::from(job.phase == JobPhase::JOB_DONE);
            (mismatches, compared) = (mismatches + job.mismatches, compared + job.compared);
            (stale, rejected) = (stale + job.stale, rejected + u64::from(job.phase == JobPhase::JOB_REJECTED));
        }
    }
    let reached = [
        ("rounds", rounds),
        ("done", done),
        ("mismatches", mismatches),
        ("compared", compared),
        ("stale", stale),
        ("suspended", suspended),
        ("gangs", gangs),
        ("taken_down", taken_down),
    ];
    for (what, count) in reached {
        assert!(count > 0, "no {what} in {reached:?}, rejected {rejected}");
    }
}
