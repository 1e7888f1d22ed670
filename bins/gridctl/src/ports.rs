//! Free loopback ports for a dev cluster.
//!
//! They lie outside the range from which the kernel takes ports for outgoing connections: else, while a replica is down, a connection of
//! another process could take its port, or one that dials it could even meet itself.

use std::fs;
use std::net::TcpListener;

use crate::failure::{Failure, Result};

const LOWEST: u16 = 15_000;
/// Below the kernel's usual range; used where it cannot be read.
const HIGHEST: u16 = 32_767;

/// (first, last) of the ports to choose from, for a kernel that takes `ephemeral` for outgoing connections.
fn range(ephemeral: Option<(u16, u16)>) -> (u16, u16) {
    match ephemeral {
        Some((low, _)) if low > LOWEST + 1_000 => (LOWEST, low - 1),
        Some((_, high)) if high < u16::MAX - 1_000 => (high + 1, u16::MAX),
        Some(_) | None => (LOWEST, HIGHEST),
    }
}

fn ephemeral() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// `count` ports on which nobody listens now. `seed` spreads clusters that start at the same moment.
pub(crate) fn choose(count: usize, seed: u64) -> Result<Vec<u16>> {
    let (first, last) = range(ephemeral());
    let width = u64::from(last - first) + 1;
    let mut held = Vec::new();
    for step in 0..width {
        if held.len() == count {
            break;
        }
        let port = first + u16::try_from((seed % width + step) % width).expect("the range is below 65,536 wide");
        // Held until all are chosen, so that none is chosen twice.
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        let cause = format!("failed to find {count} free ports on 127.0.0.1 between {first} and {last}");
        return Err(Failure::new(cause, "ss -ltn, to see who holds them"));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_free_and_not_the_kernels() {
        let ports = choose(12, 7).expect("there are some");
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 12);
        let (first, last) = range(ephemeral());
        assert!(ports.iter().all(|port| (first..=last).contains(port)));
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = choose(1, 4_321).expect("there is one")[0];
        let _holder = TcpListener::bind(("127.0.0.1", taken)).expect("it is free");
        let (first, _) = range(ephemeral());
        assert_ne!(choose(1, u64::from(taken - first)).expect("there is one")[0], taken);
    }

    #[test]
    fn the_range_avoids_ports_of_outgoing_connections() {
        assert_eq!(range(Some((32_768, 60_999))), (LOWEST, 32_767));
        assert_eq!(range(Some((1_024, 60_999))), (61_000, u16::MAX));
        assert_eq!(range(None), (LOWEST, HIGHEST));
    }
}
