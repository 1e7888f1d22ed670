//! Arrays, waiting tasks and schedules, against the real machine: leaders come and go, replies are lost, and nothing is lost or done twice.

use std::collections::BTreeMap;

use raftgrid_control::{Action, Config, Control, Cron, Input};
use raftgrid_manifest::{apply, check_invariants, command, encode_batch, views, MemRows, MACHINE_VERSION};
use raftgrid_proto::v1::{
    ArraySpec, CatchUp, Command, CommandReply, Command_oneof_kind as Kind, Dependency, JobPhase, JobSpec, LoadReport,
    Overlap, PutSchedule, ReportResult, ResolveDependents, Schedule, SetMachineVersion, SubmitJob, SubmitTask,
    TaskStatus,
};

/// Unix milliseconds of 2026-03-29 00:00 UTC: the day on which Vienna's clocks jump.
const BEGIN_MS: u64 = 1_774_742_400_000;

/// One replica whose leader changes: a new `Control` that loads the rows.
struct Group {
    rows: MemRows,
    index: u64,
    now: u64,
    control: Control,
    /// Two leaders for a while: the old one's proposals arrive, too.
    old: Option<Control>,
    random: u64,
    fired: BTreeMap<String, u64>,
}

impl Group {
    fn new() -> Self {
        let mut control = Control::new(Config::local(), 0);
        let rows = MemRows::default();
        control.load(&rows).expect("an empty state loads");
        let mut group = Self { rows, index: 0, now: 0, control, old: None, random: 1, fired: BTreeMap::new() };
        let version = SetMachineVersion { version: MACHINE_VERSION, ..SetMachineVersion::default() };
        group.apply(vec![command(Kind::set_machine_version(version))]);
        group
    }

    /// A small generator: the same run every time.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<CommandReply> {
        self.index += 1;
        let payload = encode_batch(BEGIN_MS + self.now, commands);
        let applied = apply(&self.rows, self.index, &[payload]).expect("the entry applies");
        self.rows.write(&applied.changes);
        for change in &applied.changes {
            self.control.fold(change).expect("rows decode");
            if let Some(old) = &mut self.old {
                old.fold(change).expect("rows decode");
            }
        }
        applied.replies.into_iter().flatten().collect()
    }

    fn submit(&mut self, kind: Kind) {
        let reply = self.apply(vec![command(kind)]).remove(0);
        assert_eq!(reply.outcome as i32, 0, "{}", reply.message);
    }

    /// What a step of the leader, or of the one before it, proposes.
    fn step(&mut self, is_old: bool, inputs: Vec<Input>) -> Vec<(bool, u64, Vec<Command>)> {
        let control = if is_old { self.old.as_mut() } else { Some(&mut self.control) };
        let actions = control.map(|control| control.step(self.now, inputs)).unwrap_or_default();
        let proposal = |action: Action| match action {
            Action::Propose { tag, commands } => Some((is_old, tag, commands)),
            Action::Aggregate { .. } | Action::AnswerBeat { .. } | Action::Explained { .. } | Action::WakeAt(_) => None,
        };
        actions.into_iter().filter_map(proposal).collect()
    }

    /// Steps the leader, and the one before it, until neither has anything to propose now.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            // Both propose before either's is applied.
            let mut proposals = self.step(false, vec![]);
            proposals.extend(self.step(true, vec![]));
            if proposals.is_empty() {
                return;
            }
            while let Some((is_old, tag, commands)) = proposals.pop() {
                let replies = self.apply(commands);
                let lost = self.draw(10) == 0;
                let input = Input::Proposed { tag, replies: (!lost).then_some(replies) };
                let more = self.step(is_old, vec![input]);
                proposals.splice(0..0, more);
            }
            self.count();
        }
        panic!("it never comes to rest");
    }

    fn count(&mut self) {
        let mut jobs = Vec::new();
        views::job_rows(&self.rows, |row| {
            jobs.push(row.get_job().job_id.clone());
            true
        })
        .expect("memory");
        for job in jobs {
            self.fired.entry(job).or_insert(self.now);
        }
    }

    /// Another leader; the one before goes on for a while without knowing.
    fn elect(&mut self) {
        let mut next = Control::new(Config::local(), self.now);
        next.load(&self.rows).expect("rows decode");
        self.old = Some(std::mem::replace(&mut self.control, next));
        // The first entry of its term tells the time, as a worker's beat does in a group that has any.
        self.apply(vec![command(Kind::load_report(LoadReport::default()))]);
    }
}

fn schedule(cron: &str, zone: &str, catch_up: CatchUp) -> Kind {
    let mut schedule = Schedule {
        schedule_id: "s".into(),
        cron: cron.into(),
        time_zone: zone.into(),
        overlap: Overlap::OVERLAP_ALLOW,
        catch_up,
        ..Schedule::default()
    };
    schedule.set_job(JobSpec { field_type: "command".into(), task_data: b"{}".to_vec(), ..JobSpec::default() });
    let mut put = PutSchedule::default();
    put.set_schedule(schedule);
    Kind::put_schedule(put)
}

fn ticks_until(cron: &str, zone: &str, now: u64) -> Vec<String> {
    let cron = Cron::parse(cron, zone, BEGIN_MS).expect("good");
    let mut list = Vec::new();
    let mut at = BEGIN_MS;
    while let Some(tick) = cron.next(at).filter(|tick| *tick <= BEGIN_MS + now) {
        list.push(format!("sched.s.{}", tick / 1_000));
        at = tick;
    }
    list
}

#[test]
fn every_tick_fires_once_through_elections_lost_replies_and_two_leaders() {
    for zone in ["UTC", "Europe/Vienna"] {
        let line = "*/7 * * * *";
        let mut group = Group::new();
        group.submit(schedule(line, zone, CatchUp::CATCH_UP_ALL));
        while group.now < 8 * 60 * 60 * 1_000 {
            // Now and then nobody leads for up to half an hour.
            let pause = if group.draw(20) == 0 { group.draw(1_800_000) } else { group.draw(90_000) };
            group.now += pause + 1;
            match group.draw(6) {
                0 => group.elect(),
                1 => group.old = None,
                _ => {}
            }
            group.settle();
        }
        // What a lost reply holds back comes after a pause.
        for _ in 0..100 {
            group.now += 1_000;
            group.settle();
        }
        let fired: Vec<String> = group.fired.keys().cloned().collect();
        let wanted = ticks_until(line, zone, group.now);
        assert!(wanted.len() > 60);
        assert_eq!(fired, wanted, "in {zone}");
        let row = views::schedule_row(&group.rows, "s").expect("memory").expect("there is one");
        assert_eq!((row.get_schedule().fired, row.get_schedule().skipped), (wanted.len() as u64, 0));
        assert_eq!(check_invariants(&group.rows).expect("memory"), Vec::<String>::new());
    }
}

#[test]
fn ticks_that_nobody_could_fire_in_time_go_by_where_they_are_not_made_up_for() {
    for (catch_up, fired, skipped) in
        [(CatchUp::CATCH_UP_NONE, 2, 59), (CatchUp::CATCH_UP_LAST, 2, 59), (CatchUp::CATCH_UP_ALL, 61, 0)]
    {
        let mut group = Group::new();
        group.submit(schedule("* * * * *", "", catch_up));
        group.settle();
        group.now = 60_000;
        group.settle();
        // An hour without a leader: sixty ticks, of which the newest is due at this very moment.
        group.now += 60 * 60_000;
        group.elect();
        group.old = None;
        // A lost reply costs a pause.
        for _ in 0..50 {
            group.settle();
            group.now += 200;
        }
        let row = views::schedule_row(&group.rows, "s").expect("memory").expect("there is one");
        let state = row.get_schedule();
        assert_eq!((state.fired, state.skipped), (fired, skipped), "{catch_up:?}");
    }
}

#[test]
fn an_array_goes_through_its_window_under_changing_leaders_and_each_element_runs_once() {
    let mut group = Group::new();
    let mut spec =
        JobSpec { name: "a".into(), field_type: "command".into(), task_data: b"{}".to_vec(), ..JobSpec::default() };
    spec.set_array(ArraySpec { count: 500, max_parallel: 20, ..ArraySpec::default() });
    group.submit(Kind::submit_job(SubmitJob { spec: Some(spec).into(), ..SubmitJob::default() }));
    let node = raftgrid_proto::v1::Node { node_id: "n".into(), ..Default::default() };
    let mut register = raftgrid_proto::v1::RegisterNode::default();
    register.set_node(node);
    register.mut_node().mut_capacity().slots = 100;
    group.submit(Kind::register_node(register));
    let mut ran = 0;
    for _ in 0..5_000 {
        group.now += 10;
        if group.draw(15) == 0 {
            group.elect();
        }
        group.settle();
        let row = views::job_row(&group.rows, "a").expect("memory").expect("there is one");
        if row.get_job().phase == JobPhase::JOB_DONE {
            break;
        }
        let open = views::shown_tasks(&group.rows, &row).expect("memory");
        assert!(open.len() <= 20, "{} are open", open.len());
        for task in open.iter().filter(|task| task.status == TaskStatus::PENDING) {
            let mut assign = raftgrid_proto::v1::Assign::default();
            assign.assignments.push(raftgrid_proto::v1::Assignment {
                task_id: task.task_id.clone(),
                node_id: "n".into(),
                ..Default::default()
            });
            let epoch = group.apply(vec![command(Kind::assign(assign))]).remove(0).number;
            let final_status = TaskStatus::COMPLETED;
            let report = ReportResult { task_id: task.task_id.clone(), epoch, final_status, ..ReportResult::default() };
            group.submit(Kind::report_result(report));
            ran += 1;
        }
    }
    let row = views::job_row(&group.rows, "a").expect("memory").expect("there is one");
    assert_eq!((row.get_job().phase, row.elements_done, ran), (JobPhase::JOB_DONE, 500, 500));
    assert_eq!(check_invariants(&group.rows).expect("memory"), Vec::<String>::new());
}

#[test]
fn a_leader_goes_on_telling_those_that_wait_until_all_were_told() {
    let mut group = Group::new();
    let task = |id: String, after: &str| {
        let mut submit = SubmitTask { task_id: id, task_type: "command".into(), ..SubmitTask::default() };
        if !after.is_empty() {
            let dependency = Dependency { task_id: after.into(), ..Dependency::default() };
            submit.mut_spec().depends_on.push(dependency);
        }
        Kind::submit_task(submit)
    };
    group.submit(task("root".into(), ""));
    for n in 0..900 {
        group.submit(task(format!("t{n}"), "root"));
    }
    let cancel = raftgrid_proto::v1::CancelTask { task_id: "root".into(), ..Default::default() };
    group.submit(Kind::cancel_task(cancel));
    let blocked = |group: &Group| {
        let status = TaskStatus::PENDING;
        views::count_tasks(&group.rows, status).expect("memory")
    };
    assert!(blocked(&group) > 600, "one command did not tell all");
    // A new leader finds what is left in the rows.
    group.elect();
    group.old = None;
    for _ in 0..100 {
        group.now += 200;
        group.settle();
    }
    assert_eq!(blocked(&group), 0);
    let again = group.apply(vec![command(Kind::resolve_dependents(ResolveDependents {
        task_sequence: 1,
        ..ResolveDependents::default()
    }))]);
    assert_eq!(again[0].outcome, raftgrid_proto::v1::Outcome::EXISTING);
}
