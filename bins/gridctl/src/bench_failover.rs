//! `gridctl bench failover`: from SIGKILL of the leader to the next acknowledged write, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use raftgrid_rpc::grpcio::Environment;

use crate::bench_load::Connections;
use crate::bench_side::Side;
use crate::context::Interrupt;
use crate::failure::{Failure, Result};
use crate::limits::{BENCH_ATTEMPT_TIMEOUT, BENCH_SETTLE_PAUSE, PROBE_PAUSE, READY_TIMEOUT};

/// Kills the leader `kills` times; the milliseconds of each, ascending.
pub(crate) fn measure(side: &mut Side, kills: u64, interrupt: &Interrupt) -> Result<Vec<f64>> {
    let env = raftgrid_rpc::environment("bench-failover");
    let mut times = Vec::new();
    for _ in 0..kills {
        interrupt.check()?;
        let leader = side.settled(&env)?;
        // Connections that are up: what is measured is the election, not a handshake.
        let survivors: Vec<Connections> =
            side.others(leader).iter().map(|address| Connections::new(&env, address, 1)).collect();
        for survivor in &survivors {
            survivor.call(side.method(), &side.what.request(256))?;
        }
        let killed = Instant::now();
        side.kill(leader);
        times.push(first_write(side, &survivors, killed)?);
        side.restart(leader)?;
        caught_up(side, &env)?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// A client at each survivor asks until one of them has an acknowledged write; milliseconds since the kill.
fn first_write(side: &Side, survivors: &[Connections], killed: Instant) -> Result<f64> {
    let (method, what) = (side.method(), side.what);
    let (told, first) = std::sync::mpsc::channel();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for survivor in survivors {
            let (told, over) = (told.clone(), &over);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) && killed.elapsed() < READY_TIMEOUT {
                    if survivor.call_within(method, &what.request(256), BENCH_ATTEMPT_TIMEOUT).is_ok() {
                        over.store(true, Ordering::SeqCst);
                        // The second one to succeed is not asked for.
                        let _ = told.send(killed.elapsed());
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    match first.try_iter().min() {
        Some(time) => Ok(time.as_secs_f64() * 1_000.0),
        None => Err(Failure::new("nobody took a write after the leader was killed", "the logs of the servers")),
    }
}

/// Waits until the restarted server is part of the group again, and a little longer, so that the next kill meets three that are well.
fn caught_up(side: &Side, env: &Arc<Environment>) -> Result<()> {
    thread::sleep(PROBE_PAUSE * 10);
    side.settled(env)?;
    thread::sleep(BENCH_SETTLE_PAUSE);
    Ok(())
}
