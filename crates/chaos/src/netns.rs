//! Replicas in network namespaces of their own, joined by a bridge: packets are lost by the kernel, not by a proxy. Needs root and `ip`.
//!
//! A route of the kind "blackhole" in the namespace of A for the address of B drops what A sends to B, and nothing else: TCP has to cope
//! with one way of a connection being gone, acknowledgements included.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

use crate::cluster::Seat;

const CLIENT_PORT: u16 = 40_051;
const RAFT_PORT: u16 = 50_051;

/// Namespaces of one run; removed when it is dropped.
pub struct Net {
    /// Tells the names of this run from those of others.
    tag: String,
    /// Second and third byte of the addresses.
    subnet: (u8, u8),
    replicas: usize,
}

fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip").args(args.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.context("failed to run ip")?;
    if !output.status.success() {
        bail!("failed: ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Net {
    /// Lays out a bridge and a namespace for each replica, or says why this machine does not allow it.
    pub fn new(replicas: usize) -> Result<Self> {
        let id = std::process::id();
        let subnet = (100 + (id % 100) as u8, (id / 100 % 250) as u8);
        let net = Self { tag: format!("rg{id:x}"), subnet, replicas };
        net.lay_out()?;
        Ok(net)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.tag)
    }

    fn namespace(&self, at: usize) -> String {
        format!("{}n{}", self.tag, at + 1)
    }

    fn address(&self, at: usize) -> String {
        format!("10.{}.{}.{}", self.subnet.0, self.subnet.1, at + 1)
    }

    fn lay_out(&self) -> Result<()> {
        let (bridge, host) = (self.bridge(), format!("10.{}.{}.254/24", self.subnet.0, self.subnet.1));
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {host} dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for at in 0..self.replicas {
            let (space, address) = (self.namespace(at), self.address(at));
            let (outer, inner) = (format!("{}o{}", self.tag, at + 1), format!("{}i{}", self.tag, at + 1));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {outer} type veth peer name {inner}"))?;
            ip(&format!("link set {inner} netns {space}"))?;
            ip(&format!("link set {outer} master {bridge}"))?;
            ip(&format!("link set {outer} up"))?;
            ip(&format!("-n {space} addr add {address}/24 dev {inner}"))?;
            ip(&format!("-n {space} link set {inner} up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(())
    }

    /// Seats in the namespaces.
    pub fn seats(&self, dir: &Path) -> Vec<Seat> {
        let seat = |at: usize| Seat {
            node: at as u64 + 1,
            client: format!("{}:{CLIENT_PORT}", self.address(at)),
            raft: format!("{}:{RAFT_PORT}", self.address(at)),
            raft_public: format!("{}:{RAFT_PORT}", self.address(at)),
            data_dir: dir.join(format!("replica-{}", at + 1)),
            log: dir.join(format!("replica-{}.log", at + 1)),
            wrap: ["ip", "netns", "exec"].iter().map(|word| (*word).to_owned()).chain([self.namespace(at)]).collect(),
            flags: vec!["--insecure".to_owned()],
            joins: false,
        };
        (0..self.replicas).map(seat).collect()
    }

    /// What `from` sends to `to` is lost from now on.
    pub fn block(&self, from: usize, to: usize) -> Result<()> {
        ip(&format!("-n {} route replace blackhole {}/32", self.namespace(from), self.address(to)))
    }

    /// It arrives again.
    pub fn unblock(&self, from: usize, to: usize) -> Result<()> {
        // It may not have been blocked.
        let _ = ip(&format!("-n {} route del blackhole {}/32", self.namespace(from), self.address(to)));
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for at in 0..self.replicas {
            let _ = ip(&format!("netns del {}", self.namespace(at)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}
