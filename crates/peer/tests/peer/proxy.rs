//! A connection that breaks: TCP between two ends, cut after so many bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// Passes connections on to a server.
pub struct Proxy {
    pub address: String,
    /// Connections so far.
    pub connections: Arc<Mutex<u32>>,
    /// Bytes that were passed to the server, and back.
    #[allow(dead_code, reason = "not everybody who includes this file counts them")]
    pub passed: Arc<[AtomicU64; 2]>,
}

impl Proxy {
    /// `cuts`: the first connections end after so many bytes to the server; those after them never. With `for_ever`, the last one counts
    /// for all that follow.
    pub fn to(server: &str, cuts: &[u64], for_ever: bool) -> Self {
        Self::start(server, cuts, for_ever, true)
    }

    /// The same with bytes from the server.
    #[allow(dead_code, reason = "who includes this file uses one or the other")]
    pub fn back_from(server: &str, cuts: &[u64]) -> Self {
        Self::start(server, cuts, false, false)
    }

    fn start(server: &str, cuts: &[u64], for_ever: bool, there: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let connections = Arc::new(Mutex::new(0));
        let passed = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (server, counted, mut cuts, count) =
            (server.to_owned(), connections.clone(), cuts.to_vec(), passed.clone());
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                *counted.lock().expect("no panic under the lock") += 1;
                let cut = match cuts.len() {
                    0 => u64::MAX,
                    1 if for_ever => cuts[0],
                    _ => cuts.remove(0),
                };
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (back_from, back_to) = (server.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
                let (cut_there, cut_back) = if there { (cut, u64::MAX) } else { (u64::MAX, cut) };
                let (count_there, count_back) = (count.clone(), count.clone());
                spawn(move || pass(client, server, cut_there, &count_there[0]));
                spawn(move || pass(back_from, back_to, cut_back, &count_back[1]));
            }
        });
        Self { address, connections, passed }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: u64, passed: &AtomicU64) {
    let mut left = cut;
    let mut buffer = [0; 16 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(read @ 1..) = from.read(&mut buffer[..most]) else { break };
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        left -= read as u64;
        passed.fetch_add(read as u64, Ordering::SeqCst);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
