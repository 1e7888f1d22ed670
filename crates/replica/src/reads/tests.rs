//! Reads by hand: a group, a network and a clock that do what the test says.

use std::sync::atomic::{AtomicU64, Ordering};

use raftgrid_manifest::{MemRows, Rows};
use raftgrid_telemetry::Registry;

use super::*;
use crate::ports::Download;
use crate::timer::Timer;

#[derive(Default)]
struct ByHand {
    now_ms: AtomicU64,
    status: Mutex<Status>,
    applied: AtomicU64,
    /// Rounds of the group that nobody has confirmed.
    rounds: Mutex<Vec<ReadCallback>>,
    /// Questions that nobody has answered, with who was asked.
    questions: Mutex<Vec<(u64, Callback<u64>)>>,
}

impl Clock for ByHand {
    fn monotonic_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }
    fn wall_ms(&self) -> u64 {
        0
    }
}

impl RaftGroup for ByHand {
    fn status(&self) -> Arc<Status> {
        Arc::new(self.status.lock().unwrap().clone())
    }
    fn read(&self, callback: ReadCallback) {
        self.rounds.lock().unwrap().push(callback);
    }
}

impl Views for ByHand {
    fn view(&self) -> (Arc<dyn Rows + Send + Sync>, u64) {
        (Arc::new(MemRows::default()), end_of_entry(self.applied.load(Ordering::SeqCst)))
    }
}

impl Peers for ByHand {
    fn put_fragment(&self, _: u64, _: u64, _: u32, _: [u8; 32], _: &mut dyn Download) -> Result<(), CallError> {
        unreachable!("reads move no bytes")
    }
    fn get_fragment(
        &self,
        _: u64,
        _: u64,
        _: u32,
        _: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        unreachable!("reads move no bytes")
    }
    fn forward(&self, _: u64, _: &str, _: Vec<u8>, _: Duration) -> Result<Vec<u8>, CallError> {
        unreachable!("reads forward nothing")
    }
    fn read_index(&self, node: u64, _: Duration, done: Callback<u64>) {
        self.questions.lock().unwrap().push((node, done));
    }
}

/// A read and what it was told: the index that its rows hold.
type Told = (&'static str, Result<u64, CallError>);

struct World {
    hand: Arc<ByHand>,
    timer: Timer,
    reads: Arc<Reads>,
    answers: Arc<Mutex<Vec<Told>>>,
}

const LEASE_MS: u64 = 100;

/// Node 1, which follows node 2 and has applied 10 entries.
fn world(lease_ms: u64) -> World {
    let hand = Arc::new(ByHand::default());
    hand.applied.store(10, Ordering::SeqCst);
    hand.now_ms.store(1_000, Ordering::SeqCst);
    let timer = Timer::new(hand.clone());
    let reads = Arc::new(Reads {
        node: 1,
        handle: hand.clone(),
        peers: hand.clone(),
        views: hand.clone(),
        ring: Ring::new(end_of_entry(10), timer.clone()),
        clock: hand.clone(),
        contact: Contact::new(1_000, 0),
        lease_ms,
        lease: Mutex::new(None),
        questions: Mutex::new(Questions::default()),
        metrics: Metrics::new(&Registry::new()),
    });
    let world = World { hand, timer, reads, answers: Arc::default() };
    world.led_by(2);
    world
}

impl World {
    fn led_by(&self, leader: u64) {
        let mut status = self.hand.status.lock().unwrap();
        status.term += 1;
        status.leader = leader;
        status.role = if leader == 1 { Role::Leader } else { Role::Follower };
    }

    fn read(&self, name: &'static str, freshness: Freshness) {
        let answers = self.answers.clone();
        let told = move |view: Result<ReadView, CallError>| {
            answers.lock().unwrap().push((name, view.map(|view| view.position >> 16)));
        };
        self.reads.read(freshness, Box::new(told));
    }

    /// Who was asked by the questions that are open, oldest first.
    fn asked(&self) -> Vec<u64> {
        self.hand.questions.lock().unwrap().iter().map(|(node, _)| *node).collect()
    }

    /// Answers the oldest open question.
    fn answer(&self, index: Result<u64, CallError>) {
        let (_, done) = self.hand.questions.lock().unwrap().remove(0);
        done(index);
    }

    /// A quorum confirms the oldest open round.
    fn confirm(&self) {
        let done = self.hand.rounds.lock().unwrap().remove(0);
        done(Ok(self.hand.applied.load(Ordering::SeqCst)));
    }

    fn apply(&self, index: u64) {
        self.hand.applied.store(index, Ordering::SeqCst);
        self.reads.ring.publish(end_of_entry(index), Vec::new());
    }

    fn pass(&self, ms: u64) {
        self.hand.now_ms.fetch_add(ms, Ordering::SeqCst);
        self.timer.run_due();
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

#[test]
fn a_question_serves_only_reads_that_came_before_it_was_put() {
    let world = world(0);
    for name in ["a", "b", "c", "d"] {
        world.read(name, Freshness::Linearizable);
    }
    assert_eq!(world.asked(), [2, 2], "two questions are under way, and who comes then waits");
    world.answer(Ok(10));
    assert_eq!(world.told(), [("a", Ok(10))], "what was found before b, c and d were there tells nothing about them");
    assert_eq!(world.asked(), [2, 2], "c and d are one question");
    world.answer(Ok(10));
    assert_eq!(world.told(), [("b", Ok(10))]);
    world.answer(Ok(10));
    assert_eq!(world.told(), [("c", Ok(10)), ("d", Ok(10))]);
    assert_eq!(world.asked(), [0; 0]);
}

#[test]
fn a_read_waits_until_its_index_is_applied_here() {
    let world = world(0);
    world.read("a", Freshness::Linearizable);
    world.answer(Ok(12));
    assert_eq!(world.told(), []);
    world.apply(11);
    assert_eq!(world.told(), [], "one entry is missing");
    world.apply(12);
    assert_eq!(world.told(), [("a", Ok(12))]);
}

#[test]
fn a_replica_that_is_far_behind_sends_its_readers_to_the_leader() {
    let world = world(0);
    world.read("a", Freshness::Linearizable);
    world.answer(Ok(1_000));
    world.pass(READ_APPLY_WAIT_MS - 1);
    world.apply(11);
    assert_eq!(world.told(), []);
    world.pass(1);
    assert_eq!(world.told(), [("a", Err(CallError::NotLeader { leader: 2 }))]);
}

#[test]
fn a_leader_that_fell_silent_holds_up_nobody_who_asks_the_next_one() {
    let world = world(0);
    world.read("a", Freshness::Linearizable);
    world.read("b", Freshness::Linearizable);
    world.led_by(3);
    world.read("c", Freshness::Linearizable);
    assert_eq!(world.asked(), [2, 2, 3]);
    world.answer(Err(CallError::Unknown));
    assert_eq!(world.asked(), [2, 3, 3], "the question goes to who leads now");
    world.answer(Err(CallError::Unknown));
    world.answer(Ok(10));
    world.answer(Ok(10));
    assert_eq!(world.told(), [("c", Ok(10)), ("a", Ok(10))]);
    world.answer(Ok(10));
    assert_eq!(world.told(), [("b", Ok(10))]);
}

#[test]
fn without_an_answer_and_without_another_leader_the_reader_is_told_to_try_again() {
    let world = world(0);
    for (error, told) in [
        (CallError::Unknown, CallError::Unavailable("the leader did not answer in time".to_owned())),
        (CallError::NotLeader { leader: 3 }, CallError::NotLeader { leader: 2 }),
        (CallError::Precondition("another store".to_owned()), CallError::Unavailable("another store".to_owned())),
    ] {
        world.read("a", Freshness::Linearizable);
        world.answer(Err(error));
        assert_eq!(world.told(), [("a", Err(told))]);
    }
    world.led_by(0);
    world.read("b", Freshness::Linearizable);
    assert_eq!(world.told(), [("b", Err(CallError::NotLeader { leader: 0 }))], "nobody can be asked");
    world.led_by(2);
    world.read("c", Freshness::Linearizable);
    world.led_by(1);
    world.answer(Err(CallError::NotLeader { leader: 1 }));
    world.confirm();
    assert_eq!(world.told(), [("c", Ok(10))], "it leads itself by now");
}

#[test]
fn the_leader_asks_a_quorum_for_each_linearizable_read() {
    let world = world(LEASE_MS);
    world.led_by(1);
    world.read("a", Freshness::Linearizable);
    world.confirm();
    world.read("b", Freshness::Linearizable);
    assert_eq!(world.told(), [("a", Ok(10))], "leases are for those who ask for them");
    world.confirm();
    assert_eq!(world.told(), [("b", Ok(10))]);
}

#[test]
fn a_lease_answers_without_a_question_until_it_ends() {
    let world = world(LEASE_MS);
    world.led_by(1);
    world.read("a", Freshness::Lease);
    assert_eq!(world.told(), [], "there is no lease yet");
    world.pass(30);
    world.confirm();
    world.read("b", Freshness::Lease);
    assert_eq!(world.told(), [("a", Ok(10)), ("b", Ok(10))]);
    world.pass(LEASE_MS - 31);
    world.read("c", Freshness::Lease);
    assert_eq!(world.told(), [("c", Ok(10))]);
    world.pass(1);
    world.read("d", Freshness::Lease);
    assert_eq!(world.told(), [], "it counts from before the question began");
    world.confirm();
    assert_eq!(world.told(), [("d", Ok(10))]);
}

#[test]
fn a_lease_is_not_used_by_who_has_none() {
    let off = world(0);
    off.led_by(1);
    off.read("a", Freshness::Lease);
    assert!(matches!(off.told()[..], [("a", Err(CallError::Precondition(_)))]));
    let world = world(LEASE_MS);
    world.read("a", Freshness::Lease);
    assert_eq!(world.told(), [("a", Err(CallError::NotLeader { leader: 2 }))]);
    world.led_by(1);
    world.read("b", Freshness::Lease);
    world.confirm();
    assert_eq!(world.told(), [("b", Ok(10))]);
    world.hand.status.lock().unwrap().transferred = true;
    world.read("c", Freshness::Lease);
    assert_eq!(world.told(), [], "leadership is being given away: a quorum must say");
}

#[test]
fn a_local_read_says_how_long_ago_the_leader_was_heard() {
    let world = world(0);
    world.pass(700);
    let (sender, told) = std::sync::mpsc::channel();
    world.reads.read(Freshness::Local, Box::new(move |view| sender.send(view.unwrap().age_ms).unwrap()));
    assert_eq!(told.recv().unwrap(), 700);
}
