//! The answer of a unary call, whatever comes. grpcio's own `unary_call` panics where a call ends well and brings no message
//! (tikv/grpc-rs#670), and a replica that panics ends: another one that dies in the middle of an answer could take it along. As a stream of
//! answers the same call is an error instead; on the wire there is no difference.

use std::future::Future;

use futures::executor::block_on;
use futures::TryStreamExt;
use grpcio::{CallOption, Client, Error, Method, Result, RpcStatus, RpcStatusCode};

/// Makes the call; the future is its one answer. Dropped, it ends the call. UNAVAILABLE: it ended without an answer; what was asked may have
/// been done.
pub fn ask<Req, Resp>(
    client: &Client,
    method: &Method<Req, Resp>,
    request: &Req,
    option: CallOption,
) -> Result<impl Future<Output = Result<Resp>> + Send + use<Req, Resp>>
where
    Resp: Send + 'static,
{
    let mut answers = client.server_streaming(method, request, option)?;
    Ok(async move {
        let Some(answer) = answers.try_next().await? else {
            let why = "the call ended without an answer".to_owned();
            return Err(Error::RpcFailure(RpcStatus::with_message(RpcStatusCode::UNAVAILABLE, why)));
        };
        // The status comes behind the message; a call that is dropped before it would be cancelled.
        while answers.try_next().await?.is_some() {}
        Ok(answer)
    })
}

/// The same, waited for on this thread.
pub fn ask_now<Req, Resp>(
    client: &Client,
    method: &Method<Req, Resp>,
    request: &Req,
    option: CallOption,
) -> Result<Resp>
where
    Resp: Send + 'static,
{
    block_on(Box::pin(ask(client, method, request, option)?))
}
