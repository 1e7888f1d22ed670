//! `gridctl bench failover`: from SIGKILL of the leader to the next acknowledged write, again and again.

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
        let request = side.requests(256);
        for survivor in &survivors {
            survivor.call(side.method(), &request())?;
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

/// Asks the survivors in turn until one acknowledges a write.
fn first_write(side: &Side, survivors: &[Connections], killed: Instant) -> Result<f64> {
    let request = side.requests(256);
    for survivor in survivors.iter().cycle() {
        if survivor.call_within(side.method(), &request(), BENCH_ATTEMPT_TIMEOUT).is_ok() {
            break;
        }
        if killed.elapsed() > READY_TIMEOUT {
            return Err(Failure::new("nobody took a write after the leader was killed", "the logs of the servers"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(killed.elapsed().as_secs_f64() * 1_000.0)
}

/// Waits until the restarted server is part of the group again, and a little longer, so that the next kill meets three that are well.
fn caught_up(side: &Side, env: &Arc<Environment>) -> Result<()> {
    thread::sleep(PROBE_PAUSE * 10);
    side.settled(env)?;
    thread::sleep(BENCH_SETTLE_PAUSE);
    Ok(())
}
