//! A TCP proxy in front of every replica's Raft port, with a rule for every ordered pair of replicas.
//!
//! All replicas know each other by the proxies' addresses (the table of members is replicated, so an address must mean the same to all).
//! Who dials is found through /proc: the process that owns the other end of the connection. Raft messages from A to B go over a connection
//! that A opened, and so do calls that A forwards to B: a rule for (A, B) is a rule for what A wants of B. `up` is what A sends, `down`
//! what B answers. What is held arrives late, after the rule is lifted, as TCP would deliver it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::limits::{PROXY_CHUNK_BYTES, PROXY_POLL};

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Way {
    /// They pass.
    #[default]
    Open,
    /// They wait until the rule is lifted.
    Hold,
    /// Each chunk waits so many milliseconds.
    Slow(u64),
}

/// What happens to connections of one ordered pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// Connections are reset, new ones are refused.
    pub cut: bool,
    /// From the one who dialled.
    pub up: Way,
    /// From the one who was dialled.
    pub down: Way,
}

/// (from, to), places of replicas; `from` is None where the dialler is not known.
type Pair = (Option<usize>, usize);
/// Finds the place of the replica that owns the socket with this inode.
type Owner = Box<dyn Fn(u64) -> Option<usize> + Send + Sync>;

struct Shared {
    rules: Mutex<BTreeMap<(usize, usize), Rule>>,
    /// Raised to reset all connections of a pair once, without a rule that lasts.
    resets: Mutex<BTreeMap<(usize, usize), u64>>,
    owner: Mutex<Option<Owner>>,
    closing: AtomicBool,
    connections: AtomicU64,
    strangers: AtomicU64,
}

/// The proxies of a cluster.
pub struct Proxies {
    shared: Arc<Shared>,
    addresses: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxies {
    /// One in front of each of these addresses.
    pub fn start(targets: &[String]) -> Result<Self> {
        let shared = Arc::new(Shared {
            rules: Mutex::default(),
            resets: Mutex::default(),
            owner: Mutex::default(),
            closing: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
        });
        let ports = crate::cluster::free_ports(targets.len())?;
        let mut addresses = Vec::new();
        for (to, (target, port)) in targets.iter().zip(ports).enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", port)).context("failed to open a proxy's port")?;
            addresses.push(format!("127.0.0.1:{port}"));
            let (shared, target) = (shared.clone(), target.clone());
            std::thread::Builder::new()
                .name(format!("proxy-{}", to + 1))
                .spawn(move || accept(&shared, &listener, to, &target))
                .context("failed to start a proxy's thread")?;
        }
        Ok(Self { shared, addresses })
    }

    /// Where peers are to dial, in order of the targets.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Says how to find who dials: inode of a socket → place of the replica.
    pub fn find_owners(&self, owner: Owner) {
        *lock(&self.shared.owner) = Some(owner);
    }

    /// Sets the rule of an ordered pair.
    pub fn set(&self, from: usize, to: usize, rule: Rule) {
        lock(&self.shared.rules).insert((from, to), rule);
    }

    /// Resets the connections of a pair, once.
    pub fn reset(&self, from: usize, to: usize) {
        *lock(&self.shared.resets).entry((from, to)).or_default() += 1;
    }

    /// All pairs pass again.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
    }

    /// (connections so far, those whose dialler was not found: no rule holds for them).
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.connections.load(Ordering::Relaxed), self.shared.strangers.load(Ordering::Relaxed))
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // Wakes the threads that wait for connections; each ends with the first that it gets.
        for address in &self.addresses {
            let _ = TcpStream::connect(address);
        }
    }
}

impl Shared {
    fn rule(&self, (from, to): Pair) -> Rule {
        from.and_then(|from| lock(&self.rules).get(&(from, to)).copied()).unwrap_or_default()
    }

    fn resets(&self, (from, to): Pair) -> u64 {
        from.and_then(|from| lock(&self.resets).get(&(from, to)).copied()).unwrap_or_default()
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, to: usize, target: &str) {
    for stream in listener.incoming() {
        if shared.closing() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let (shared, target) = (shared.clone(), target.to_owned());
        // A connection that cannot have its threads is refused by dropping it.
        let _ = std::thread::Builder::new()
            .name("proxy-link".to_owned())
            .spawn(move || carry(&shared, stream, to, &target));
    }
}

/// Both directions of one connection.
fn carry(shared: &Arc<Shared>, dialler: TcpStream, to: usize, target: &str) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let pair = (dialled_by(shared, &dialler), to);
    if pair.0.is_none() {
        shared.strangers.fetch_add(1, Ordering::Relaxed);
    }
    if shared.rule(pair).cut {
        return;
    }
    let Ok(dialled) = TcpStream::connect(target) else { return };
    let (Ok(back_from), Ok(back_to)) = (dialled.try_clone(), dialler.try_clone()) else { return };
    let resets = shared.resets(pair);
    let other = shared.clone();
    let _ = std::thread::Builder::new().name("proxy-back".to_owned()).spawn(move || {
        pump(&other, pair, resets, |rule| rule.down, back_from, back_to);
    });
    pump(shared, pair, resets, |rule| rule.up, dialler, dialled);
}

/// Carries bytes one way until an end, a cut or a reset.
fn pump(shared: &Shared, pair: Pair, resets: u64, way: fn(&Rule) -> Way, mut from: TcpStream, mut to: TcpStream) {
    let _ = from.set_nodelay(true);
    let _ = to.set_nodelay(true);
    let _ = from.set_read_timeout(Some(PROXY_POLL));
    let mut chunk = vec![0; PROXY_CHUNK_BYTES];
    let alive = || !shared.closing() && !shared.rule(pair).cut && shared.resets(pair) == resets;
    while alive() {
        if way(&shared.rule(pair)) == Way::Hold {
            std::thread::sleep(PROXY_POLL);
            continue;
        }
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        if let Way::Slow(ms) = way(&shared.rule(pair)) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        while alive() && way(&shared.rule(pair)) == Way::Hold {
            std::thread::sleep(PROXY_POLL);
        }
        if !alive() || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The replica at the other end of an accepted connection.
fn dialled_by(shared: &Shared, stream: &TcpStream) -> Option<usize> {
    let (theirs, ours) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    // A dialler with a socket for both families stands in the second table.
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| inode_of(&std::fs::read_to_string(table).ok()?, theirs, ours))?;
    lock(&shared.owner).as_ref().and_then(|owner| owner(inode))
}

/// The inode of the socket that goes from `local` to `remote`, in the text of /proc/net/tcp or tcp6.
fn inode_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let port = |word: &str| u16::from_str_radix(word.rsplit_once(':')?.1, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (from, to) = (port(words.next()?)?, port(words.next()?)?);
        // Local, remote, state, queues, timer, retransmits, uid, timeout, inode.
        (from == local.port() && to == remote.port()).then(|| words.nth(6)?.parse().ok()).flatten()
    })
}

/// Whether the process has the socket open.
pub fn holds_socket(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> (String, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap().to_string(), listener)
    }

    #[test]
    fn who_dials_is_found_and_its_rule_holds_and_what_was_held_comes_late() {
        let (address, listener) = echo();
        let proxies = Proxies::start(&[address]).unwrap();
        // This process is replica 1, which dials replica 0.
        let pid = std::process::id();
        proxies.find_owners(Box::new(move |inode| holds_socket(pid, inode).then_some(1)));
        proxies.set(1, 0, Rule { up: Way::Hold, ..Rule::default() });
        let mut dialler = TcpStream::connect(&proxies.addresses()[0]).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        dialler.write_all(b"late").unwrap();
        // The other way is open.
        served.write_all(b"now").unwrap();
        let mut got = [0; 3];
        dialler.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"now");
        served.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut late = [0; 4];
        assert!(served.read(&mut late).is_err(), "it was held");
        proxies.heal();
        served.set_read_timeout(None).unwrap();
        served.read_exact(&mut late).unwrap();
        assert_eq!(&late, b"late");
        assert_eq!(proxies.counts(), (1, 0));
        // A cut ends what is there.
        proxies.set(1, 0, Rule { cut: true, ..Rule::default() });
        assert!(matches!(dialler.read(&mut got), Ok(0) | Err(_)));
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:2EE0 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 20 4 30 10 -1\n";
        let local = "127.0.0.1:12000".parse().unwrap();
        let remote = "127.0.0.1:50000".parse().unwrap();
        assert_eq!(inode_of(table, local, remote), Some(4711));
        assert_eq!(inode_of(table, remote, local), None);
    }
}
