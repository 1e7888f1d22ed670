//! The same harness against etcd: the same faults, proxies, record and checkers, to show that what is asked is fair. One run by hand
//! (`--etcd /usr/bin/etcd`), no part of `make chaos`.
//!
//! Spoken through etcd's JSON gateway: a put is a write, a transaction on what is there a compare-and-set, a range of one key a linearizable
//! read; a revision is a position, the revision of the last modification the version. A call is made once: etcd has no request ids.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use raftgrid_proto::v1::StateResponse;
use raftgrid_simulator::linearizability::{Answer, Done, Kind, Op, Outcome, Value};
use serde_json::{json, Value as Json};

use crate::chance::Chance;
use crate::cluster::Seat;
use crate::limits::{KEYS_AT_ONCE, OPS_PER_KEY, READ_TIMEOUT, STATE_TIMEOUT};
use crate::load::Shared;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digit = |c: &u8| DIGITS.iter().position(|known| known == c).map(|at| at as u32);
        let word = chunk.iter().try_fold(0u32, |word, c| Some(word << 6 | digit(c)?))? << (6 * (4 - chunk.len()));
        out.extend(word.to_be_bytes()[1..chunk.len()].iter().copied());
    }
    Some(out)
}

/// One call; an answer only if etcd says 200.
fn call(endpoint: &str, path: &str, body: &Json, timeout: Duration) -> Result<Json> {
    let address: SocketAddr = endpoint.parse().context("no address")?;
    let mut stream = TcpStream::connect_timeout(&address, timeout).context("failed to connect")?;
    stream.set_read_timeout(Some(timeout)).context("failed to set a timeout")?;
    let body = body.to_string();
    let head =
        format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).context("failed to ask")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("failed to read the answer")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("refused: {body}");
    }
    serde_json::from_str(body).context("failed to decode the answer")
}

fn number(json: &Json) -> Option<u64> {
    json.as_str().and_then(|text| text.parse().ok()).or_else(|| json.as_u64())
}

/// The command line of one member.
pub fn command(program: &Path, seats: &[Seat], at: usize) -> Command {
    let seat = &seats[at];
    let members: Vec<String> = seats.iter().map(|it| format!("n{}=http://{}", it.node, it.raft_public)).collect();
    let client = format!("http://{}", seat.client);
    let mut command = Command::new(program);
    command
        .args(["--name", &format!("n{}", seat.node), "--initial-cluster", &members.join(",")])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &format!("http://{}", seat.raft)])
        .args(["--initial-advertise-peer-urls", &format!("http://{}", seat.raft_public)])
        .args(["--heartbeat-interval", "20", "--election-timeout", "200", "--initial-cluster-state", "new"])
        .arg("--data-dir")
        .arg(&seat.data_dir);
    command
}

/// What a member says of itself.
pub fn state(seat: &Seat) -> Option<StateResponse> {
    let status = call(&seat.client, "/v3/maintenance/status", &json!({}), STATE_TIMEOUT).ok()?;
    let (leader, own) = (number(&status["leader"])?, number(&status["header"]["member_id"])?);
    let mut state = StateResponse::new();
    state.set_node_id(seat.node);
    state.set_leader_id(leader);
    state.set_term(number(&status["raftTerm"])?);
    state.set_role(if leader == own { "leader" } else { "follower" }.to_owned());
    Some(state)
}

/// One client, until the load ends.
pub fn client(all: &Shared, mut chance: Chance, client: u32) {
    while !all.stopping() {
        let base = all.next_op() / OPS_PER_KEY;
        let key = format!("reg-{}", base + chance.below(KEYS_AT_ONCE));
        let tag = all.tag();
        let kind = match chance.below(10) {
            0..=2 => Kind::Write { tag },
            3 => Kind::Swap { expect: None, tag },
            4 => Kind::Swap { expect: Some(chance.between(tag.saturating_sub(20), tag)), tag },
            _ => Kind::Read,
        };
        let endpoint = chance.pick(&all.endpoints.now()).clone();
        let invoked = all.record.now();
        let told = ask(&endpoint, &key, kind);
        let at = all.record.now();
        let outcome = told.map_or(Outcome::Unknown, |(answer, position, version)| {
            Outcome::Done(Done { at, answer, position, version })
        });
        if outcome != Outcome::Unknown && kind != Kind::Read {
            all.record.ack(invoked);
        }
        all.record.op(Op { client, key, kind, invoked, outcome });
        all.pause();
    }
}

/// (answer, revision, revision of what was found); an error says nothing about what became of it.
fn ask(endpoint: &str, key: &str, kind: Kind) -> Result<(Answer, Option<u64>, Option<u64>)> {
    let encoded = base64(key.as_bytes());
    let put = |tag: u64| json!({"key": encoded, "value": base64(tag.to_string().as_bytes())});
    let answer = match kind {
        Kind::Write { tag } => call(endpoint, "/v3/kv/put", &put(tag), READ_TIMEOUT)?,
        Kind::Read | Kind::Seal => call(endpoint, "/v3/kv/range", &json!({"key": encoded}), READ_TIMEOUT)?,
        Kind::Swap { expect, tag } => {
            let compare = match expect {
                None => json!({"key": encoded, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}),
                Some(tag) => {
                    let value = base64(tag.to_string().as_bytes());
                    json!({"key": encoded, "target": "VALUE", "result": "EQUAL", "value": value})
                }
            };
            let body = json!({"compare": [compare], "success": [{"request_put": put(tag)}]});
            call(endpoint, "/v3/kv/txn", &body, READ_TIMEOUT)?
        }
    };
    let revision = number(&answer["header"]["revision"]);
    Ok(match kind {
        Kind::Write { .. } => (Answer::Taken, revision, None),
        Kind::Swap { .. } if answer["succeeded"].as_bool() == Some(true) => (Answer::Taken, revision, None),
        Kind::Swap { .. } => (Answer::Refused, revision, None),
        Kind::Read | Kind::Seal => {
            let found = &answer["kvs"][0];
            let tag =
                found["value"].as_str().and_then(from_base64).and_then(|it| String::from_utf8(it).ok()?.parse().ok());
            (Answer::Found(tag.map(Value::of)), revision, number(&found["mod_revision"]))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_everybody() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
    }
}
