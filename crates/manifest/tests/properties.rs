//! Random command sequences: invariants hold after every entry, a replay gives the same bytes, a snapshot with the tail is the full replay.

mod common;

use common::*;
use proptest::prelude::*;
use raftgrid_manifest::{
    command, command_for, encode_batch, views, MemRows, RoundMode, RoundPolicy, Rows, MACHINE_VERSION,
};
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
    Kv(u8, u8, u8),
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
    Deadline(u8, u8),
    ResumeJob(u8),
    Later(u16),
    After(u8, u8, u8),
    Graph(u8),
    Array(u8),
    Element(u8, u8),
    Schedule(u8, u8),
    Resolve,
    Push(u8, u8),
    Remove(u8, u8),
    Name(u8, u8),
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
        4 => (n(), n(), n()).prop_map(|(k, how, who)| Step::Kv(k, how, who)),
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
        28 => (n(), n(), n(), n()).prop_map(|(t, s, e, b)| Step::Gradient(t, s, e, b)),
        1 => (n(), n(), n()).prop_map(|(t, s, e)| Step::Reject(t, s, e)),
        18 => (n(), any::<bool>()).prop_map(|(j, w)| Step::Model(j, w)),
        1 => any::<bool>().prop_map(Step::Unused),
        6 => (n(), n()).prop_map(|(j, how)| Step::Deadline(j, how)),
        3 => n().prop_map(Step::ResumeJob),
        2 => (0_u16..2_000).prop_map(Step::Later),
        3 => (n(), n(), n()).prop_map(|(t, a, b)| Step::After(t, a, b)),
        2 => n().prop_map(Step::Graph),
        3 => n().prop_map(Step::Array),
        8 => (n(), n()).prop_map(|(t, how)| Step::Element(t, how)),
        3 => (n(), n()).prop_map(|(how, at)| Step::Schedule(how, at)),
        1 => Just(Step::Resolve),
        4 => (n(), n()).prop_map(|(name, text)| Step::Push(name, text)),
        1 => (n(), n()).prop_map(|(name, how)| Step::Remove(name, how)),
        2 => (n(), n()).prop_map(|(from, name)| Step::Name(from, name)),
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

/// Four tasks; the conditions differ.
fn graph(n: u8) -> JobSpec {
    let mut spec = JobSpec { name: "g".into(), field_type: "dag".into(), ..JobSpec::default() };
    let conditions = [Condition::WHEN_SUCCEEDED, Condition::WHEN_FAILED, Condition::WHEN_ENDED];
    for (name, after) in [("d", vec!["b", "c"]), ("a", vec![]), ("b", vec!["a"]), ("c", vec!["a"])] {
        let mut task = DagTask { name: name.into(), field_type: "command".into(), ..DagTask::default() };
        task.mut_spec().retries_given = true;
        for (at, other) in after.into_iter().enumerate() {
            let condition = conditions[(usize::from(n) + at) % 3];
            task.depends_on.push(DagEdge { name: other.into(), condition, ..DagEdge::default() });
        }
        spec.dag.push(task);
    }
    spec
}

/// A version, the newest, all or one; of a name or of a model.
fn remove(name: u8, how: u8) -> Kind {
    let name = ["net", "best"][usize::from(name % 2)];
    let artifact = match how {
        0 | 1 => name.to_owned(),
        2 => format!("{name}@latest"),
        3 => "one/model@latest".to_owned(),
        how => format!("{name}@{}", how - 3),
    };
    Kind::remove_artifact(RemoveArtifact { artifact, all: how == 1, ..RemoveArtifact::default() })
}

fn name_it(from: u8, name: u8) -> Kind {
    let from = ["one/model@latest", "two/model@latest", "net@1", "net", "best", "best@2"][usize::from(from % 6)];
    let name = ["net", "best"][usize::from(name % 2)].to_owned();
    Kind::name_artifact(NameArtifact { from: from.to_owned(), name, keep: 3, ..NameArtifact::default() })
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
            Step::Kv(k, how, who) => vec![self.kv(*k, *how, *who)],
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
                vec![lease_shards(job(*t), self.round(job(*t)) + u64::from(s / 6), leases)]
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
            Step::Deadline(j, how) => self.deadline(job(*j), *how),
            Step::ResumeJob(j) => {
                vec![Kind::resume_job(ResumeJob { job_id: job(*j).into(), ..ResumeJob::default() })]
            }
            Step::Unused(confirmed) => {
                let begun = self.world.begin("", "file", &format!("file {}", self.names));
                vec![delete_artifact(begun, false), delete_artifact(begun, *confirmed)]
            }
            Step::After(t, a, b) => {
                let condition = [Condition::WHEN_SUCCEEDED, Condition::WHEN_FAILED, Condition::WHEN_ENDED];
                let other = |n: &u8| format!("t{}", n % 4);
                let list = [(other(a), condition[usize::from(*b) % 3]), (other(b), condition[usize::from(*a) % 3])];
                let list: Vec<(&str, Condition)> = list.iter().map(|(id, when)| (id.as_str(), *when)).collect();
                vec![submit_after(&format!("t{}", 3 + t % 3), &list[..1 + usize::from(*t) % 2])]
            }
            Step::Graph(n) => vec![submit_job(graph(*n))],
            Step::Array(n) => self.array(*n),
            Step::Element(t, how) => self.element(*t, *how),
            Step::Schedule(how, at) => self.schedule(*how, *at),
            Step::Resolve => {
                let mut left = 0;
                let (from, to) = (raftgrid_manifest::keys::number(0), raftgrid_manifest::keys::number(1));
                let mut first = |key: &[u8], _: &[u8]| {
                    left = raftgrid_manifest::keys::last_number(key).unwrap_or(0);
                    false
                };
                let looked = self.world.rows.scan(raftgrid_manifest::Table::Dependent, &from, &to, &mut first);
                looked.expect("memory");
                let resolve = ResolveDependents { task_sequence: left, ..ResolveDependents::default() };
                vec![Kind::resolve_dependents(resolve)]
            }
            Step::Push(name, text) => self.push(*name, *text),
            Step::Remove(name, how) => vec![remove(*name, *how)],
            Step::Name(from, name) => vec![name_it(*from, *name)],
            Step::Later(ms) => {
                self.world.now_ms += u64::from(*ms);
                Vec::new()
            }
        }
    }

    /// A file under one of two names, perhaps its next version; with a budget that is reached now and then.
    fn push(&mut self, name: u8, text: u8) -> Vec<Kind> {
        let (name, text) = (["net", "best"][usize::from(name % 2)], "x".repeat(usize::from(text)));
        let Kind::begin_artifact(mut begin) = begin("", "file", name, &text) else { unreachable!() };
        (begin.versioned, begin.keep) = (text.len() != 3, u32::from(text.len() == 4) * 2);
        begin.principal_bytes_max = if text.len() == 7 { 20 } else { 0 };
        let reply = self.world.run(Kind::begin_artifact(begin));
        if matches!(reply.outcome, Outcome::ALREADY_EXISTS | Outcome::EXHAUSTED) {
            return Vec::new();
        }
        vec![commit_artifact(reply.number, &text)]
    }

    /// One of two keys: set, compared and set, deleted; by nobody, by an attempt, for a job.
    fn kv(&self, k: u8, how: u8, who: u8) -> Kind {
        let key = format!("key-{}", k % 2);
        let revision = views::kv(&self.world.rows, &key).expect("memory").map_or(0, |row| row.revision);
        let mut writer = KvWriter::default();
        match who {
            0 | 1 => {
                writer.task_id = task(who);
                writer.epoch = self.epoch(&task(who), k);
            }
            2..=5 => writer.job_id = job(who).into(),
            _ => {}
        }
        let value = vec![k; usize::from(how)];
        let writer = protobuf::SingularPtrField::some(writer);
        match how {
            0 => Kind::kv_delete(KvDelete { key, expected: revision, writer, ..KvDelete::default() }),
            1 => Kind::kv_delete(KvDelete { key, writer, ..KvDelete::default() }),
            2 | 3 => Kind::kv_put(KvPut { key, value, writer, ..KvPut::default() }),
            _ => {
                let expected = if how == 7 { 1 } else { revision };
                Kind::kv_compare_and_set(KvCompareAndSet { key, value, expected, writer, ..KvCompareAndSet::default() })
            }
        }
    }

    /// The array's submission, its next elements, or another try of those that failed.
    fn array(&mut self, n: u8) -> Vec<Kind> {
        let row = views::job_row(&self.world.rows, "a").expect("memory");
        let Some(row) = row else {
            let mut spec = JobSpec { name: "a".into(), field_type: "command".into(), ..JobSpec::default() };
            spec.task_data = b"{}".to_vec();
            spec.mut_array().count = 9;
            spec.mut_array().max_parallel = 4;
            spec.mut_task().retries_given = true;
            return vec![submit_job(spec)];
        };
        if n == 0 {
            let retry = RetryElements { job_id: "a".into(), ..RetryElements::default() };
            return vec![Kind::retry_elements(retry)];
        }
        if n == 1 {
            let cancel = CancelJob { job_id: "a".into(), ..CancelJob::default() };
            return vec![Kind::cancel_job(cancel)];
        }
        let (from, count, generation) = views::next_elements(&row).unwrap_or((row.next_element, 1, 0));
        // Sometimes what another leader reckoned before.
        let from = if n == 7 { from.saturating_sub(1) } else { from };
        let more =
            MaterializeElements { job_id: "a".into(), from, count, generation, ..MaterializeElements::default() };
        vec![Kind::materialize_elements(more)]
    }

    /// An open element, or a task of the graph, is placed and ends.
    fn element(&mut self, t: u8, how: u8) -> Vec<Kind> {
        let name = if t < 4 { "a" } else { "g" };
        let Some(row) = views::job_row(&self.world.rows, name).expect("memory") else { return Vec::new() };
        let open = views::shown_tasks(&self.world.rows, &row).expect("memory");
        let open: Vec<Task> = open
            .into_iter()
            .filter(|task| !matches!(task.status, TaskStatus::COMPLETED | TaskStatus::FAILED))
            .filter(|task| task.phase != Phase::PHASE_BLOCKED)
            .collect();
        let Some(task) = open.get(usize::from(how) % open.len().max(1)) else { return Vec::new() };
        if task.status == TaskStatus::PENDING {
            return vec![assign(&[(&task.task_id, NODES[usize::from(t) % NODES.len()])])];
        }
        let status = if how.is_multiple_of(3) { TaskStatus::FAILED } else { TaskStatus::COMPLETED };
        vec![report(&task.task_id, task.lease_epoch, status, |r| r.exit_code = 65)]
    }

    fn schedule(&mut self, how: u8, at: u8) -> Vec<Kind> {
        let row = views::schedule_row(&self.world.rows, "s").expect("memory").unwrap_or_default();
        let now = self.world.now_ms;
        match how {
            0 | 1 => {
                let mut schedule =
                    Schedule { schedule_id: "s".into(), cron: "* * * * *".into(), ..Schedule::default() };
                let overlaps = [Overlap::OVERLAP_FORBID, Overlap::OVERLAP_ALLOW, Overlap::OVERLAP_REPLACE];
                schedule.overlap = overlaps[usize::from(at) % 3];
                schedule.mut_job().field_type = "command".into();
                let mut put = PutSchedule::default();
                put.set_schedule(schedule);
                vec![Kind::put_schedule(put)]
            }
            2 => vec![Kind::pause_schedule(PauseSchedule {
                schedule_id: "s".into(),
                paused: at.is_multiple_of(2),
                ..PauseSchedule::default()
            })],
            _ => {
                // Twice: by two leaders.
                let tick_ms = (now + 1).saturating_sub(u64::from(at) * 200);
                let generation = row.generation;
                let fire = FireSchedule { schedule_id: "s".into(), generation, tick_ms, ..FireSchedule::default() };
                let fire = FireSchedule { skip: how == 3, by_hand: how == 4, ..fire };
                vec![Kind::fire_schedule(fire.clone()), Kind::fire_schedule(fire)]
            }
        }
    }

    /// A job, and its trainers placed where there is room.
    fn new_job(&mut self, n: u8) -> Vec<Kind> {
        let mut spec = train_spec(job(n));
        let train = spec.mut_train();
        train.quorum = u32::from(n % 2);
        train.retain_rounds = 2;
        match n / 2 {
            1 => (train.round_deadline_ms, train.min_contributions, train.extensions_max) = (500, 1, u32::from(n % 2)),
            2 => (train.mode, train.staleness, train.round_deadline_ms) = ("bounded".into(), 1, 700),
            3 => (train.mode, train.staleness) = ("async".into(), u64::from(n % 2)),
            _ => {}
        }
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
        let row = views::job_row(&self.world.rows, job).expect("memory").unwrap_or_default();
        let before = newest.saturating_sub(1);
        let (round, version) = match RoundPolicy::of(&row).mode {
            RoundMode::Sync if bytes == 7 => (before, before),
            RoundMode::Sync => (newest, newest),
            RoundMode::Bounded { .. } => (newest + u64::from(s / 4), if bytes == 7 { before } else { newest }),
            RoundMode::Async { .. } if bytes > 5 => (before, before),
            RoundMode::Async { .. } => (newest, newest),
        };
        let shard = u32::from(s % 2);
        // Mostly the same bytes for a (round, shard, model), sometimes others.
        let text = if bytes == 6 { format!("{job} x{t}") } else { format!("{job} g{round}.{shard}.{version}") };
        let artifact = self.world.begin(job, "gradient", &text);
        let epoch = self.epoch(&task(t), e);
        let Kind::commit_gradient(mut commit) = gradient(job, round, shard, &task(t), epoch, artifact, &text) else {
            unreachable!()
        };
        commit.model_version = version;
        vec![Kind::commit_gradient(commit)]
    }

    /// What two leaders reckoned at once, mostly when it is time.
    fn deadline(&mut self, job: &str, how: u8) -> Vec<Kind> {
        let Some(row) = views::get_round(&self.world.rows, job, self.round(job)).expect("memory") else {
            return Vec::new();
        };
        if how > 1 {
            self.world.now_ms = self.world.now_ms.max(row.opened_at_ms.max(row.deadline_from_ms) + 700);
        }
        let (round, extension) = (row.round + u64::from(how == 7), row.extensions + u32::from(how == 6));
        let job_id = job.to_owned();
        let seal = SealRound { job_id: job_id.clone(), round, extension, ..SealRound::default() };
        let extend = ExtendRound { job_id, round, extension, ..ExtendRound::default() };
        let extend = Kind::extend_round(extend);
        vec![Kind::seal_round(seal), extend.clone(), extend]
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
    let steps = prop::collection::vec(step(), 200);
    let (mut rounds, mut done, mut mismatches, mut compared, mut stale, mut rejected) = (0, 0, 0, 0, 0, 0);
    let (mut suspended, mut blocked, mut unmet, mut elements, mut graphs, mut ticks) = (0, 0, 0, 0, 0, 0);
    let mut scoped = 0;
    let (mut named, mut models) = (0, 0);
    let (mut gangs, mut taken_down) = (0, 0);
    let (mut by_deadline, mut extended, mut older, mut paused) = (0, 0, 0, 0);
    for _ in 0..80 {
        let world = run(&steps.new_tree(&mut runner).expect("a strategy without filters").current()).world;
        for n in 0..8 {
            let task = views::get_task(&world.rows, &task(n)).expect("memory");
            suspended += u64::from(task.is_some_and(|task| task.phase == Phase::PHASE_SUSPENDED));
        }
        for name in ["net", "best"] {
            let versions = views::artifact_versions(&world.rows, name).expect("memory");
            named += versions.iter().filter(|info| info.versions[0].version > 2).count();
            models += versions.iter().filter(|info| info.kind == "model").count();
        }
        let keys = views::list_kv(&world.rows, "", &[], 0, true).expect("memory").keys;
        scoped += keys.iter().filter(|key| !key.job_id.is_empty()).count() as u64;
        for n in 0..6 {
            let task = views::get_task(&world.rows, &format!("t{n}")).expect("memory").unwrap_or_default();
            blocked += u64::from(task.phase == Phase::PHASE_BLOCKED);
            unmet += u64::from(task.phase == Phase::PHASE_DEPENDENCY_FAILED);
        }
        let array = views::job_row(&world.rows, "a").expect("memory").unwrap_or_default();
        elements += array.elements_done.min(array.elements_failed);
        let graph = views::get_job(&world.rows, "g").expect("memory").unwrap_or_default();
        graphs += u64::from(graph.phase == JobPhase::JOB_DONE);
        let schedule = views::schedule_row(&world.rows, "s").expect("memory").unwrap_or_default();
        ticks += schedule.get_schedule().fired;
        let gang = views::get_job(&world.rows, "gang").expect("memory").unwrap_or_default();
        gangs += gang.gang_generation;
        taken_down += u64::from(gang.gang_user_failures + gang.gang_infrastructure_failures);
        for name in ["one", "two"] {
            let Some(job) = views::get_job(&world.rows, name).expect("memory") else { continue };
            rounds += job.rounds_committed;
            (by_deadline, extended) = (by_deadline + job.rounds_by_deadline, extended + job.extensions);
            (older, paused) = (older + job.stale_gradients, paused + u64::from(job.phase == JobPhase::JOB_PAUSED));
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
        ("keys of jobs", scoped),
        ("third versions", named as u64),
        ("models by a name", models as u64),
        ("blocked", blocked),
        ("dependency failed", unmet),
        ("elements", elements),
        ("graphs", graphs),
        ("ticks", ticks),
        ("gangs", gangs),
        ("taken_down", taken_down),
        ("rounds by deadline", by_deadline),
        ("extended rounds", extended),
        ("gradients of older models", older),
        ("paused", paused),
    ];
    for (what, count) in reached {
        assert!(count > 0, "no {what} in {reached:?}, rejected {rejected}");
    }
}
