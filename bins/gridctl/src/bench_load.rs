//! The load of `gridctl bench`: clients that each keep one call under way, for a while, over a few connections. The same code for both
//! sides: requests and answers are bytes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use raftgrid_rpc::grpcio::{
    CallOption, Client, Environment, Error, GrpcSlice, Marshaller, MessageReader, Method, MethodType,
};

use crate::failure::{Failure, Result};
use crate::limits::{BENCH_CALL_TIMEOUT, BENCH_CONNECTIONS_MAX};

/// A unary call by its bytes.
pub(crate) type RawMethod = Method<Vec<u8>, Vec<u8>>;

#[allow(clippy::ptr_arg, reason = "the signature is grpcio's")]
fn ser(bytes: &Vec<u8>, out: &mut GrpcSlice) -> raftgrid_rpc::grpcio::Result<()> {
    *out = GrpcSlice::from(bytes.as_slice());
    Ok(())
}

fn de(mut reader: MessageReader) -> raftgrid_rpc::grpcio::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(reader.len());
    std::io::Read::read_to_end(&mut reader, &mut bytes).map_err(|error| Error::Codec(error.into()))?;
    Ok(bytes)
}

/// The method of this full path.
pub(crate) const fn raw(name: &'static str) -> RawMethod {
    Method { ty: MethodType::Unary, name, req_mar: Marshaller { ser, de }, resp_mar: Marshaller { ser, de } }
}

/// What one run of clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: u64,
    pub(crate) took: Duration,
    /// In microseconds, ascending.
    pub(crate) latencies: Vec<u32>,
}

impl Seen {
    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }

    /// The latency below which this share of the calls was, in milliseconds.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let at = (self.latencies.len().saturating_sub(1)) as f64 * share;
        self.latencies.get(at as usize).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    }
}

/// Connections to one server.
pub(crate) struct Connections {
    stubs: Vec<Client>,
}

impl Connections {
    /// As many as `clients` share.
    pub(crate) fn new(env: &Arc<Environment>, address: &str, clients: usize) -> Self {
        let count = clients.clamp(1, BENCH_CONNECTIONS_MAX);
        Self { stubs: (0..count).map(|_| Client::new(raftgrid_rpc::channel(env, address))).collect() }
    }

    /// Runs `clients` closed loops for `time`. `request` makes the bytes of each call. The first failure ends the run.
    pub(crate) fn run(
        &self,
        method: &'static RawMethod,
        clients: usize,
        time: Duration,
        request: impl Fn() -> Vec<u8> + Copy + 'static,
    ) -> Result<Seen> {
        let mut pool = LocalPool::new();
        let latencies = Rc::new(RefCell::new(Vec::new()));
        let failed = Rc::new(RefCell::new(None));
        let begin = Instant::now();
        for client in 0..clients {
            let stub = self.stubs[client % self.stubs.len()].clone();
            let (latencies, failed) = (latencies.clone(), failed.clone());
            let body = async move {
                while begin.elapsed() < time && failed.borrow().is_none() {
                    let bytes = request();
                    let asked = Instant::now();
                    let option = CallOption::default().timeout(BENCH_CALL_TIMEOUT);
                    let answer = match stub.unary_call_async(method, &bytes, option) {
                        Ok(answer) => answer.await,
                        Err(error) => Err(error),
                    };
                    match answer {
                        Ok(_) => {
                            latencies.borrow_mut().push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX))
                        }
                        Err(error) => *failed.borrow_mut() = Some(error.to_string()),
                    }
                }
            };
            let spawned = pool.spawner().spawn_local(body);
            spawned.map_err(|error| Failure::new(format!("failed to start a client: {error}"), "fewer --clients"))?;
        }
        pool.run();
        let took = begin.elapsed();
        if let Some(cause) = failed.borrow_mut().take() {
            return Err(Failure::new(format!("a call of the benchmark failed: {cause}"), "the logs of the servers"));
        }
        let mut latencies = latencies.take();
        latencies.sort_unstable();
        Ok(Seen { calls: latencies.len() as u64, took, latencies })
    }

    /// One call.
    pub(crate) fn call(&self, method: &'static RawMethod, request: &Vec<u8>) -> Result<Vec<u8>> {
        self.call_within(method, request, BENCH_CALL_TIMEOUT)
    }

    /// One call, given up after `timeout`.
    pub(crate) fn call_within(
        &self,
        method: &'static RawMethod,
        request: &Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>> {
        let answer = self.stubs[0].unary_call(method, request, CallOption::default().timeout(timeout));
        answer.map_err(|error| Failure::new(format!("{} failed: {error}", method.name), "the logs of the servers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_latencies_are_those_of_the_sorted_list() {
        let seen = Seen { calls: 4, took: Duration::from_secs(2), latencies: vec![1_000, 2_000, 3_000, 40_000] };
        assert_eq!((seen.rate(), seen.latency_ms(0.5), seen.latency_ms(1.0)), (2.0, 2.0, 40.0));
        assert_eq!(Seen::default().latency_ms(0.5), 0.0);
    }
}
