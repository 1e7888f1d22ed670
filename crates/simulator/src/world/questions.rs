//! Calls between nodes: read indexes, and batches that a node that does not lead forwards. Each is answered once, at the latest by its time-out.

use raftgrid_replica::ports::CallError;

use super::event::Event;
use super::traffic::REFUSED_US;
use super::World;
use crate::ports::{give_fragment, take_fragment, Question, Wanted};

impl World {
    /// Carries away what a node asks of others, and what it has to tell those that asked it.
    pub(super) fn carry_questions(&mut self, node: u64) {
        let Some(machine) = self.nodes.get_mut(&node) else { return };
        let life = machine.life;
        let Some(live) = machine.live.as_mut() else { return };
        let told = live.told.take();
        let mut asked = Vec::new();
        for Question { node: to, wanted, timeout, done } in live.questions.take() {
            live.questions_asked += 1;
            live.asked.insert(live.questions_asked, done);
            asked.push((to, live.questions_asked, wanted, timeout));
        }
        for (to, number, wanted, timeout) in asked {
            self.count(match wanted {
                Wanted::Index => "read index asked",
                Wanted::Proposal(_) => "forwarded",
                Wanted::Put { .. } => "fragment sent",
                Wanted::Get { .. } => "fragment asked",
            });
            for at in self.network.arrivals(self.now_us, node, to) {
                self.order(at, Event::Question { to, from: node, life, number, wanted: wanted.clone() });
            }
            let late = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
            self.after(late, Event::Told { to: node, life, number, answer: Err(CallError::Unknown) });
        }
        for (to, life, number, answer) in told {
            for at in self.network.arrivals(self.now_us, node, to).into_iter().take(1) {
                self.order(at, Event::Told { to, life, number, answer: answer.clone() });
            }
        }
    }

    /// `asker`: who, in which of its lives, and the number of the question.
    pub(super) fn deliver_question(&mut self, to: u64, asker: (u64, u64, u64), wanted: Wanted) {
        let (from, life, number) = asker;
        self.note("question", [to, from, number, 0]);
        if self.nodes.get(&to).is_none_or(|machine| machine.live.is_none()) {
            let answer = Err(CallError::Unavailable("nobody listens".to_owned()));
            return self.after(REFUSED_US, Event::Told { to: from, life, number, answer });
        }
        self.within(to, |live| {
            let told = live.told.clone();
            let tell = move |answer: Result<Vec<u8>, CallError>| told.push([(from, life, number, answer)]);
            match wanted {
                Wanted::Index => live
                    .hand
                    .replica
                    .read_index(Box::new(move |index| tell(index.map(|index| index.to_le_bytes().to_vec())))),
                Wanted::Proposal(batch) => {
                    live.hand.replica.proposals().propose_forwarded(&batch, Box::new(tell));
                }
                Wanted::Put { artifact_id, fragment, digest, bytes } => {
                    tell(take_fragment(&live.hand.replica, (artifact_id, fragment), digest, &bytes));
                }
                Wanted::Get { artifact_id, fragment } => {
                    tell(give_fragment(&live.hand.replica, artifact_id, fragment));
                }
            }
            Ok(())
        });
    }

    pub(super) fn deliver_told(&mut self, to: u64, number: u64, answer: Result<Vec<u8>, CallError>) {
        let Some(live) = self.nodes.get_mut(&to).and_then(|machine| machine.live.as_mut()) else { return };
        // Only the first answer counts.
        let Some(done) = live.asked.remove(&number) else { return };
        self.note("told", [to, number, u64::from(answer.is_ok()), 0]);
        self.count(if answer.is_ok() { "told" } else { "not told" });
        self.within(to, |_| {
            done(answer);
            Ok(())
        });
    }
}
