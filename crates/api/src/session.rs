//! Session: batches of calls on one stream. What a batch writes is one proposal, so that a message, an entry and an fsync are shared by all
//! its calls; each has its own answer.
//!
//! On a follower the proposal is forwarded to the leader whole, and a poll by itself: nothing of a batch is done twice.

use std::sync::Arc;

use protobuf::Message;
use raftgrid_proto::v1::*;
use raftgrid_rpc::methods;

use crate::calls::{ask, shown, Surface};
use crate::context::{Context, Core};
use crate::failure::{invalid, taken, Answer, Failure};
use crate::{forward, limits, node, task};

pub(crate) fn register(surface: Surface) -> Surface {
    surface.duplex(&methods::SESSION, |core| &core.sessions, limits::SESSION_BATCHES_MAX, serve)
}

type Shown = SessionAnswer_oneof_answer;

/// What is made of the reply to a call's command.
type Finish = fn(&CommandReply) -> Shown;

/// A call whose command waits to be proposed.
struct Waiting {
    /// Its place in the batch.
    at: usize,
    command: Command,
    finish: Finish,
}

async fn serve(core: Arc<Core>, context: Context, mut batch: SessionBatch) -> SessionAnswers {
    let calls = batch.take_calls().into_vec();
    let mut answers: Vec<Answer<Shown>> = Vec::with_capacity(calls.len());
    let (mut waiting, mut polls) = (Vec::new(), Vec::new());
    let too_many = calls.len() > limits::SESSION_CALLS_MAX;
    for (at, call) in calls.into_iter().enumerate() {
        // Whatever is not decided below was never answered by the replica.
        answers.push(Err(Failure::Unavailable("the replica gave no answer; try again".to_owned())));
        let prepared = if too_many {
            Err(invalid("calls", format!("at most {} in a batch", limits::SESSION_CALLS_MAX)))
        } else {
            prepare(&core, &context, call).await
        };
        match prepared {
            Ok(Prepared::Write(command, finish)) => waiting.push(Waiting { at, command, finish }),
            Ok(Prepared::Poll(request)) => polls.push((at, request)),
            Err(failure) => answers[at] = Err(failure),
        }
    }
    write(&core, waiting, &mut answers).await;
    for (at, request) in polls {
        answers[at] = poll(&core, &context, request).await.map(Shown::poll);
    }
    let mut response = SessionAnswers { batch_id: batch.batch_id, ..SessionAnswers::default() };
    response.set_answers(answers.into_iter().map(|answer| told(&core, answer)).collect());
    response
}

#[allow(clippy::large_enum_variant, reason = "one at a time, on its way from one function to the other")]
enum Prepared {
    Write(Command, Finish),
    Poll(PollTaskRequest),
}

async fn prepare(core: &Arc<Core>, context: &Context, call: SessionCall) -> Answer<Prepared> {
    let (request_id, kind, finish): (String, Command_oneof_kind, Finish) = match call.call {
        Some(SessionCall_oneof_call::submit(request)) => {
            let (request_id, kind) = task::submission(core, request).await?;
            (request_id, kind, |reply| Shown::submit(task::submitted(reply)))
        }
        Some(SessionCall_oneof_call::start(request)) => {
            (String::new(), node::started(request)?, |_| Shown::start(node::acknowledged()))
        }
        Some(SessionCall_oneof_call::report(request)) => {
            let kind = node::result(core, context, request).await?;
            (String::new(), kind, |reply| Shown::report(node::reported(reply)))
        }
        Some(SessionCall_oneof_call::poll(request)) => return Ok(Prepared::Poll(request)),
        None => return Err(invalid("call", "is missing, or of a kind that this replica does not know")),
    };
    let mut command = Command { kind: Some(kind), request_id, ..Command::default() };
    command.set_principal(context.caller.principal.clone());
    if command.compute_size() as usize > limits::COMMAND_BYTES_MAX {
        return Err(invalid("call", format!("more than {} bytes", limits::COMMAND_BYTES_MAX)));
    }
    Ok(Prepared::Write(command, finish))
}

/// Proposes the commands, in order, in as few proposals as their size allows.
async fn write(core: &Arc<Core>, waiting: Vec<Waiting>, answers: &mut [Answer<Shown>]) {
    let mut rest = waiting.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut places, mut commands, mut bytes) = (Vec::new(), Vec::new(), 0);
        // One that is larger than that goes alone.
        while let Some(next) = rest.next_if(|next| bytes == 0 || bytes + next.command.get_cached_size() <= room()) {
            bytes += next.command.get_cached_size() + COMMAND_FRAME_BYTES;
            places.push((next.at, next.finish));
            commands.push(next.command);
        }
        match ask(|done| core.ports.commands.propose(commands, done)).await {
            Ok(replies) => {
                for ((at, finish), reply) in places.into_iter().zip(replies) {
                    answers[at] = taken(reply).map(|reply| finish(&reply));
                }
            }
            Err(failure) => {
                let status = shown(core, failure);
                for (at, _) in places {
                    answers[at] = Err(Failure::Status(status.clone()));
                }
            }
        }
    }
}

/// The tag and the length of a command in its proposal.
const COMMAND_FRAME_BYTES: u32 = 8;

const fn room() -> u32 {
    limits::SESSION_PROPOSAL_BYTES_MAX as u32
}

async fn poll(core: &Arc<Core>, context: &Context, mut request: PollTaskRequest) -> Answer<PollTaskResponse> {
    match node::poll(core.clone(), context.clone(), request.clone()).await {
        Err(Failure::NotLeader { leader }) => {
            request.wait_ms = request.wait_ms.min(limits::FORWARDED_POLL_WAIT_MS_MAX);
            forward::to_leader(core, leader, methods::POLL_TASK.method.name, &request).await
        }
        other => other,
    }
}

fn told(core: &Core, answer: Answer<Shown>) -> SessionAnswer {
    match answer {
        Ok(answer) => SessionAnswer { answer: Some(answer), ..SessionAnswer::default() },
        Err(failure) => {
            let status = shown(core, failure);
            SessionAnswer { status: status.code().into(), message: status.message().to_owned(), ..Default::default() }
        }
    }
}
