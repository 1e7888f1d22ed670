//! Answers of unary calls over a real connection: the message, the status, and a call that ends well without a message.

use grpcio::{CallOption, Client, Error, RpcContext, RpcStatus, RpcStatusCode, ServerStreamingSink, UnarySink};
use raftgrid_proto::v1::{LeaderRequest, LeaderResponse, StateRequest, StateResponse, StatsRequest, StatsResponse};
use raftgrid_rpc::answer::ask_now;
use raftgrid_rpc::methods::{CLUSTER_LEADER, CLUSTER_STATE, CLUSTER_STATS};
use raftgrid_rpc::serve::{listen, Handlers};
use raftgrid_rpc::{channel, environment};

#[test]
fn a_call_that_ends_well_without_an_answer_is_an_error_and_no_panic() {
    let env = environment("answers");
    let service = Handlers::new()
        .unary(&CLUSTER_STATE, |ctx: RpcContext<'_>, _: StateRequest, sink: UnarySink<StateResponse>| {
            let mut state = StateResponse::new();
            state.set_node_id(7);
            ctx.spawn(async move { drop(sink.success(state).await) });
        })
        .unary(&CLUSTER_STATS, |ctx: RpcContext<'_>, _: StatsRequest, sink: UnarySink<StatsResponse>| {
            let status = RpcStatus::with_message(RpcStatusCode::FAILED_PRECONDITION, "no".to_owned());
            ctx.spawn(async move { drop(sink.fail(status).await) });
        })
        // What a server that is killed in the middle of an answer can look like.
        .server_streaming(
            &CLUSTER_LEADER,
            |ctx: RpcContext<'_>, _: LeaderRequest, mut sink: ServerStreamingSink<LeaderResponse>| {
                ctx.spawn(async move { drop(futures::SinkExt::close(&mut sink).await) });
            },
        )
        .build();
    let (_server, port) = listen(&env, "127.0.0.1:0", vec![service]).expect("a port is free");
    let client = Client::new(channel(&env, &format!("127.0.0.1:{port}")));
    let state = ask_now(&client, &CLUSTER_STATE.method, &StateRequest::new(), CallOption::default());
    assert_eq!(state.expect("it is served").node_id, 7);
    let code = |error: Error| match error {
        Error::RpcFailure(status) => status.code(),
        other => panic!("{other}"),
    };
    let refused = ask_now(&client, &CLUSTER_STATS.method, &StatsRequest::new(), CallOption::default());
    assert_eq!(code(refused.expect_err("it is refused")), RpcStatusCode::FAILED_PRECONDITION);
    let nothing = ask_now(&client, &CLUSTER_LEADER.method, &LeaderRequest::new(), CallOption::default());
    assert_eq!(code(nothing.expect_err("there is no answer")), RpcStatusCode::UNAVAILABLE);
}
