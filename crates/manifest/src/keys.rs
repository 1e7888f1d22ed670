//! Keys of the rows: big-endian, so that the order of bytes is the order of numbers. The layout is on disk: never change it.

use raftgrid_proto::v1::TaskStatus;

/// Key of the only row of `Meta` and of `Digest`.
pub const ONLY: &[u8] = &[0];

/// A number as a key, big-endian.
pub fn number(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// A number that ends a key or is a value; None if the bytes are too short.
pub fn last_number(bytes: &[u8]) -> Option<u64> {
    let tail: [u8; 8] = bytes.get(bytes.len().checked_sub(8)?..)?.try_into().ok()?;
    Some(u64::from_be_bytes(tail))
}

/// The number that begins a key; None if the bytes are too short.
pub fn first_number(bytes: &[u8]) -> Option<u64> {
    bytes.get(..8).and_then(last_number)
}

/// Two numbers as a key.
pub fn pair(first: u64, second: u64) -> Vec<u8> {
    [first.to_be_bytes(), second.to_be_bytes()].concat()
}

/// Key in `TaskByStatus`.
pub fn task_by_status(status: TaskStatus, sequence: u64) -> Vec<u8> {
    let mut key = task_status(status);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// Prefix of a status in `TaskByStatus`.
pub fn task_status(status: TaskStatus) -> Vec<u8> {
    let code: u8 = match status {
        TaskStatus::PENDING => 0,
        TaskStatus::ASSIGNED => 1,
        TaskStatus::RUNNING => 2,
        TaskStatus::COMPLETED => 3,
        TaskStatus::FAILED => 4,
    };
    vec![code]
}

/// The node.
pub fn node(node_id: &str) -> Vec<u8> {
    node_id.as_bytes().to_vec()
}

/// Prefix of a node's leases. The length goes first: no node id is a prefix of another's keys.
pub fn node_tasks(node_id: &str) -> Vec<u8> {
    let mut key = (node_id.len() as u16).to_be_bytes().to_vec();
    key.extend_from_slice(node_id.as_bytes());
    key
}

/// Key in `TaskByNode`.
pub fn task_by_node(node_id: &str, sequence: u64) -> Vec<u8> {
    let mut key = node_tasks(node_id);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// The queue.
pub fn queue(name: &str) -> Vec<u8> {
    name.as_bytes().to_vec()
}

/// Key in `TaskByQueue`; its prefix is that of the queue's tasks.
pub fn task_by_queue(name: &str, sequence: u64) -> Vec<u8> {
    task_by_node(name, sequence)
}

/// Prefix of a queue's tasks.
pub fn queue_tasks(name: &str) -> Vec<u8> {
    node_tasks(name)
}

/// What the ledger says of a (round, shard).
pub fn contribution(job_sequence: u64, round: u64, shard: u32) -> Vec<u8> {
    let mut key = pair(job_sequence, round);
    key.extend_from_slice(&shard.to_be_bytes());
    key
}

/// The remembered request under this key.
pub fn request(principal: &str, request_id: &str) -> Vec<u8> {
    let mut key = (principal.len() as u32).to_be_bytes().to_vec();
    key.extend_from_slice(principal.as_bytes());
    key.extend_from_slice(request_id.as_bytes());
    key
}

/// Key in `Usage` of what a principal holds.
pub fn usage_of_principal(principal: &str) -> Vec<u8> {
    [b"p", principal.as_bytes()].concat()
}

/// Key in `Usage` of what is on a replica.
pub fn usage_of_node(node_id: u64) -> Vec<u8> {
    [b"r".as_slice(), &node_id.to_be_bytes()].concat()
}

/// Key in `KvByJob`.
pub fn kv_by_job(job_sequence: u64, key: &str) -> Vec<u8> {
    let mut bytes = number(job_sequence);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The first key after all keys that begin with `prefix`; empty (the end of the table) if there is none.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
