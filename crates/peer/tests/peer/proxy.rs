//! A connection that breaks: TCP between two ends, cut after so many bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// Passes connections on to a server.
pub struct Proxy {
    pub address: String,
    /// Bytes that went to the server, over all connections.
    pub passed: Arc<AtomicU64>,
}

impl Proxy {
    /// `cuts`: the first connections end after so many bytes to the server; those after them never. With `for_ever`, the last one counts
    /// for all that follow.
    pub fn to(server: &str, cuts: &[u64], for_ever: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let passed = Arc::new(AtomicU64::new(0));
        let (server, counted, cuts) = (server.to_owned(), passed.clone(), Mutex::new(cuts.to_vec()));
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut cuts = cuts.lock().expect("no panic under the lock");
                let cut = match cuts.len() {
                    0 => u64::MAX,
                    1 if for_ever => cuts[0],
                    _ => cuts.remove(0),
                };
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (back_from, back_to) = (server.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
                let counted = counted.clone();
                spawn(move || pass(client, server, cut, &counted));
                spawn(move || pass(back_from, back_to, u64::MAX, &AtomicU64::new(0)));
            }
        });
        Self { address, passed }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: u64, counted: &AtomicU64) {
    let mut left = cut;
    let mut buffer = [0; 16 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(read @ 1..) = from.read(&mut buffer[..most]) else { break };
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        counted.fetch_add(read as u64, Ordering::SeqCst);
        left -= read as u64;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
