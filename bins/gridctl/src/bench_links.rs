//! Slow links for `gridctl bench value`: a network namespace for each replica, joined by a bridge, and `tc tbf` in both directions of each. Needs root
//! and iproute2.

use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};

/// Of what goes over at once, beyond the rate, in bytes: a few segments.
const BURST_BYTES: u32 = 16 * 1024;
/// How long a packet may wait for its turn; then it is dropped.
const QUEUE_MS: u32 = 400;

/// Namespaces of one run; they go when this is dropped.
pub(crate) struct Links {
    /// Tells the names of this run from those of others.
    tag: String,
    /// Second and third byte of the addresses.
    subnet: (u8, u8),
    count: usize,
}

fn run(program: &str, words: &str) -> Result<()> {
    let failed = |cause: String| {
        Failure::new(format!("{program} {words}: {cause}"), "as root, on a machine with iproute2 and namespaces")
    };
    let output = Command::new(program).args(words.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// A rate as tc reads it: a whole number and kbit, mbit or gbit.
pub(crate) fn check_rate(rate: &str) -> Result<()> {
    let digits = rate.trim_end_matches("kbit").trim_end_matches("mbit").trim_end_matches("gbit");
    match digits.len() < rate.len() && digits.parse::<u32>().is_ok_and(|number| number > 0) {
        true => Ok(()),
        false => Err(Failure::usage(format!("`{rate}` is no rate of a link"), "--links 10mbit")),
    }
}

impl Links {
    /// So many namespaces, each behind a link of `rate` in both directions.
    pub(crate) fn new(count: usize, rate: &str) -> Result<Self> {
        check_rate(rate)?;
        let id = std::process::id();
        let subnet = (100 + (id % 100) as u8, (id / 100 % 250) as u8);
        let links = Self { tag: format!("rv{id:x}"), subnet, count };
        links.lay_out(rate)?;
        Ok(links)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.tag)
    }

    /// Name of a namespace.
    pub(crate) fn namespace(&self, at: usize) -> String {
        format!("{}n{}", self.tag, at + 1)
    }

    /// Address inside it.
    pub(crate) fn address(&self, at: usize) -> String {
        format!("10.{}.{}.{}", self.subnet.0, self.subnet.1, at + 1)
    }

    fn lay_out(&self, rate: &str) -> Result<()> {
        let (bridge, host) = (self.bridge(), format!("10.{}.{}.254/24", self.subnet.0, self.subnet.1));
        run("ip", &format!("link add {bridge} type bridge"))?;
        run("ip", &format!("addr add {host} dev {bridge}"))?;
        run("ip", &format!("link set {bridge} up"))?;
        let shape = format!("root tbf rate {rate} burst {BURST_BYTES} latency {QUEUE_MS}ms");
        for at in 0..self.count {
            let (space, address) = (self.namespace(at), self.address(at));
            let (outer, inner) = (format!("{}o{}", self.tag, at + 1), format!("{}i{}", self.tag, at + 1));
            run("ip", &format!("netns add {space}"))?;
            run("ip", &format!("link add {outer} type veth peer name {inner}"))?;
            run("ip", &format!("link set {inner} netns {space}"))?;
            run("ip", &format!("link set {outer} master {bridge}"))?;
            run("ip", &format!("link set {outer} up"))?;
            run("ip", &format!("-n {space} addr add {address}/24 dev {inner}"))?;
            run("ip", &format!("-n {space} link set {inner} up"))?;
            run("ip", &format!("-n {space} link set lo up"))?;
            // What the replica sends, and what it is sent.
            run("tc", &format!("-n {space} qdisc add dev {inner} {shape}"))?;
            run("tc", &format!("qdisc add dev {outer} {shape}"))?;
        }
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for at in 0..self.count {
            // One that was not made cannot be removed.
            let _ = run("ip", &format!("netns del {}", self.namespace(at)));
        }
        let _ = run("ip", &format!("link del {}", self.bridge()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_with_its_unit() {
        for good in ["10mbit", "1gbit", "500kbit"] {
            assert!(check_rate(good).is_ok(), "{good}");
        }
        for wrong in ["", "10", "mbit", "0mbit", "10mbit; rm", "-1mbit", "10 mbit"] {
            assert!(check_rate(wrong).is_err(), "{wrong}");
        }
    }
}
