//! Proposals: at most one under way for each subject (a task, a node, a job, an artifact). Owns the tags.
//!
//! A subject is taken from the moment its command is put in until its row was seen to change after the reply (or `SETTLE_MS` after an
//! accepted one, `RETRY_PAUSE_MS` after a refused or lost one). The guards of the machine make a doubled proposal harmless; the outbox
//! makes it rare.

use std::collections::BTreeMap;

use protobuf::Message;
use raftgrid_proto::v1::{Command, CommandReply, Command_oneof_kind, Outcome};

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, PROPOSALS_MAX, PROPOSAL_ANSWER_MS, RETRY_PAUSE_MS, SETTLE_MS,
};
use crate::timers::Timers;
use crate::types::{Action, Millis};

/// What a proposal is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// By sequence.
    Task(u64),
    /// By id.
    Node(String),
    /// By sequence.
    Job(u64),
    /// By id.
    Artifact(u64),
    /// By sequence: those that wait for it are told of its end.
    Unresolved(u64),
    /// By id.
    Schedule(String),
    /// The load report.
    Load,
}

/// What became of a subject's proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In effect, now or earlier.
    Accepted,
    /// A guard said no.
    Refused(String),
    /// Not accepted or unknown.
    Lost,
}

#[derive(Debug)]
struct Flight {
    /// None: answered, the subject rests.
    tag: Option<u64>,
    /// Its row changed while the proposal was under way.
    touched: bool,
}

/// A proposal that is complete.
#[derive(Debug)]
struct Proposal {
    /// Whose, and how many of the commands each has, in order.
    subjects: Vec<(Subject, usize)>,
    commands: Vec<Command>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    last_tag: u64,
    flights: BTreeMap<Subject, Flight>,
    /// When a subject is free again, whatever comes.
    rests: Timers<Subject>,
    /// By tag: the subjects and how many commands each has, in order.
    proposals: BTreeMap<u64, Vec<(Subject, usize)>>,
    /// Single commands of this step, not yet in a proposal.
    singles: Vec<(Subject, Command)>,
    /// Proposals of this step.
    ready: Vec<Proposal>,
    /// Something may be proposed that could not be when `wake` was called last.
    freed: bool,
}

impl Outbox {
    /// Tags begin above those of every outbox that began earlier on this clock: an answer to a deposed leader's proposal names none of ours.
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            last_tag: now << 20,
            flights: BTreeMap::new(),
            rests: Timers::default(),
            proposals: BTreeMap::new(),
            singles: Vec::new(),
            ready: Vec::new(),
            freed: false,
        }
    }

    /// May something be proposed for the subject now?
    pub(crate) fn free(&self, subject: &Subject) -> bool {
        !self.busy(subject) && self.proposals.len() + self.ready.len() < PROPOSALS_MAX
    }

    /// May anything be proposed at all?
    pub(crate) fn has_room(&self) -> bool {
        self.proposals.len() + self.ready.len() < PROPOSALS_MAX
    }

    /// Is something of the subject under way (or resting)?
    pub(crate) fn busy(&self, subject: &Subject) -> bool {
        self.flights.contains_key(subject)
    }

    /// A command of its own; singles of one step share proposals.
    pub(crate) fn put(&mut self, subject: Subject, kind: Command_oneof_kind) {
        self.take(&subject);
        self.singles.push((subject, command(kind)));
    }

    /// Commands that belong into one proposal of their own, in order.
    pub(crate) fn put_together(&mut self, subject: Subject, kinds: Vec<Command_oneof_kind>) {
        self.take(&subject);
        let commands: Vec<Command> = kinds.into_iter().map(command).collect();
        self.ready.push(Proposal { subjects: vec![(subject, commands.len())], commands });
    }

    fn take(&mut self, subject: &Subject) {
        assert!(!self.busy(subject), "one proposal a subject: {subject:?}");
        self.rests.clear(subject);
        self.flights.insert(subject.clone(), Flight { tag: None, touched: false });
    }

    /// The subject's row changed.
    pub(crate) fn touch(&mut self, subject: &Subject) {
        match self.flights.get_mut(subject) {
            Some(flight) if flight.tag.is_some() => flight.touched = true,
            Some(_) => self.release(subject),
            None => {}
        }
    }

    fn release(&mut self, subject: &Subject) {
        self.flights.remove(subject);
        self.rests.clear(subject);
        self.freed = true;
    }

    /// Takes in the replies of a proposal and says what became of each subject: of its first command that failed, else accepted.
    pub(crate) fn replied(
        &mut self,
        now: Millis,
        tag: u64,
        replies: Option<Vec<CommandReply>>,
    ) -> Vec<(Subject, Verdict)> {
        self.freed |= !self.has_room();
        let subjects = self.proposals.remove(&tag).unwrap_or_default();
        let mut replies = replies.map(Vec::into_iter);
        let mut verdicts = Vec::with_capacity(subjects.len());
        for (subject, commands) in subjects {
            let mut verdict = Verdict::Accepted;
            for _ in 0..commands {
                let one = match replies.as_mut().map(Iterator::next) {
                    Some(Some(reply)) => judge(&reply),
                    Some(None) | None => Verdict::Lost,
                };
                if verdict == Verdict::Accepted {
                    verdict = one;
                }
            }
            self.rest(now, &subject, &verdict);
            verdicts.push((subject, verdict));
        }
        verdicts
    }

    fn rest(&mut self, now: Millis, subject: &Subject, verdict: &Verdict) {
        let Some(flight) = self.flights.get_mut(subject) else { return };
        match verdict {
            Verdict::Accepted if flight.touched => self.release(subject),
            Verdict::Accepted => {
                flight.tag = None;
                self.rests.set(subject.clone(), now + SETTLE_MS);
            }
            Verdict::Refused(_) | Verdict::Lost => {
                flight.tag = None;
                self.rests.set(subject.clone(), now + RETRY_PAUSE_MS);
            }
        }
    }

    /// Frees subjects whose rest is over. True: some are free now that were not at the last call, by this or by a reply.
    pub(crate) fn wake(&mut self, now: Millis) -> bool {
        let due = self.rests.pop_due(now);
        for subject in &due {
            let flight = self.flights.remove(subject);
            if let Some(tag) = flight.and_then(|flight| flight.tag) {
                self.proposals.remove(&tag);
            }
        }
        std::mem::take(&mut self.freed) || !due.is_empty()
    }

    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.rests.next()
    }

    /// Turns what was put in into actions.
    pub(crate) fn flush(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut subjects = Vec::new();
        let mut commands: Vec<Command> = Vec::new();
        let mut bytes = 0;
        for (subject, command) in std::mem::take(&mut self.singles) {
            let size = command.compute_size() as usize;
            if commands.len() == BATCH_COMMANDS_MAX || (!commands.is_empty() && bytes + size > BATCH_BYTES_MAX) {
                let (subjects, commands) = (std::mem::take(&mut subjects), std::mem::take(&mut commands));
                self.ready.push(Proposal { subjects, commands });
                bytes = 0;
            }
            bytes += size;
            subjects.push((subject, 1));
            commands.push(command);
        }
        if !commands.is_empty() {
            self.ready.push(Proposal { subjects, commands });
        }
        for Proposal { subjects, commands } in std::mem::take(&mut self.ready) {
            self.last_tag += 1;
            for (subject, _) in &subjects {
                if let Some(flight) = self.flights.get_mut(subject) {
                    flight.tag = Some(self.last_tag);
                    self.rests.set(subject.clone(), now + PROPOSAL_ANSWER_MS);
                }
            }
            self.proposals.insert(self.last_tag, subjects);
            actions.push(Action::Propose { tag: self.last_tag, commands });
        }
    }
}

fn command(kind: Command_oneof_kind) -> Command {
    Command { kind: Some(kind), ..Command::default() }
}

fn judge(reply: &CommandReply) -> Verdict {
    match reply.outcome {
        Outcome::OK | Outcome::EXISTING | Outcome::DUPLICATE => Verdict::Accepted,
        Outcome::NOT_FOUND
        | Outcome::ALREADY_EXISTS
        | Outcome::STALE_LEASE
        | Outcome::PRECONDITION
        | Outcome::INVALID
        | Outcome::OUTCOME_UNKNOWN
        | Outcome::MISMATCH
        | Outcome::STALE
        | Outcome::EXHAUSTED => Verdict::Refused(format!("{:?}: {}", reply.outcome, reply.message)),
    }
}

#[cfg(test)]
mod tests {
    use raftgrid_proto::v1::{ExpireLease, Start};

    use super::*;

    fn start() -> Command_oneof_kind {
        Command_oneof_kind::start(Start::default())
    }

    fn flush(outbox: &mut Outbox) -> Vec<(u64, usize)> {
        let mut actions = Vec::new();
        outbox.flush(0, &mut actions);
        actions
            .iter()
            .map(|action| match action {
                Action::Propose { tag, commands } => (*tag, commands.len()),
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn singles_share_proposals_of_at_most_64() {
        let mut outbox = Outbox::new(0);
        for task in 0..130 {
            outbox.put(Subject::Task(task), Command_oneof_kind::expire_lease(ExpireLease::default()));
        }
        assert_eq!(flush(&mut outbox), vec![(1, 64), (2, 64), (3, 2)]);
    }

    #[test]
    fn a_lost_proposal_frees_its_subject_after_a_pause() {
        let mut outbox = Outbox::new(0);
        let subject = Subject::Task(1);
        outbox.put(subject.clone(), start());
        flush(&mut outbox);
        assert!(!outbox.free(&subject));
        assert_eq!(outbox.replied(100, 1, None), vec![(subject.clone(), Verdict::Lost)]);
        assert!(!outbox.wake(100 + RETRY_PAUSE_MS - 1) && !outbox.free(&subject));
        assert!(outbox.wake(100 + RETRY_PAUSE_MS) && outbox.free(&subject));
    }

    #[test]
    fn a_proposal_whose_answer_never_comes_frees_its_subjects_at_last() {
        let mut outbox = Outbox::new(0);
        let subjects = [Subject::Task(1), Subject::Task(2)];
        for subject in &subjects {
            outbox.put(subject.clone(), start());
        }
        flush(&mut outbox);
        assert!(!outbox.wake(PROPOSAL_ANSWER_MS - 1));
        assert!(outbox.wake(PROPOSAL_ANSWER_MS));
        assert!(subjects.iter().all(|subject| outbox.free(subject)));
        assert_eq!(outbox.replied(PROPOSAL_ANSWER_MS, 1, None), vec![], "too late");
    }

    #[test]
    fn tags_of_a_later_outbox_differ_from_those_of_an_earlier_one() {
        let tags = |began| {
            let mut outbox = Outbox::new(began);
            (0..100)
                .flat_map(|task| {
                    outbox.put(Subject::Task(task), start());
                    flush(&mut outbox)
                })
                .map(|(tag, _)| tag)
                .collect::<std::collections::BTreeSet<u64>>()
        };
        assert!(tags(1_000).is_disjoint(&tags(1_001)));
    }

    #[test]
    fn an_accepted_proposal_frees_its_subject_when_the_row_changed() {
        let mut outbox = Outbox::new(0);
        let (early, late) = (Subject::Task(1), Subject::Task(2));
        outbox.put(early.clone(), start());
        outbox.put(late.clone(), start());
        flush(&mut outbox);
        outbox.touch(&early);
        assert!(!outbox.free(&early), "the reply is still to come");
        outbox.replied(0, 1, Some(vec![CommandReply::default(); 2]));
        assert!(outbox.free(&early));
        assert!(outbox.wake(0), "whoever was kept out meanwhile is told");
        assert!(!outbox.free(&late) && !outbox.wake(0));
        outbox.touch(&late);
        assert!(outbox.free(&late) && outbox.wake(0));
    }

    #[test]
    fn a_refusal_of_the_second_command_of_a_subject_is_its_verdict() {
        let mut outbox = Outbox::new(0);
        outbox.put_together(Subject::Job(1), vec![start(), start()]);
        flush(&mut outbox);
        let refused = CommandReply { outcome: Outcome::STALE, message: "late".into(), ..CommandReply::default() };
        let verdicts = outbox.replied(0, 1, Some(vec![CommandReply::default(), refused]));
        assert_eq!(verdicts, vec![(Subject::Job(1), Verdict::Refused("STALE: late".into()))]);
    }
}
