//! Checks of strings and messages that come from users, and the cutting of what is kept.

use protobuf::Message;
use raftgrid_proto::v1::{Limits, Resources, TaskSpec};
use sha2::{Digest as _, Sha256};

use crate::error::Fault;
use crate::limits::{
    CPU_MILLI_MAX, GPUS_MAX, ID_BYTES_MAX, LABELS_MAX, LIMIT_MAX, MEMORY_BYTES_MAX, NOTE_BYTES_MAX, PRIORITY_MAX,
    REASON_BYTES_MAX, REQUIREMENTS_BYTES_MAX, SLOTS_MAX, SPEC_BYTES_MAX,
};
use crate::reply::invalid;

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// A name: letters, digits, `.`, `_`, `-`, beginning with a letter or a digit; `also` may stand in it, too.
pub(crate) fn check_name(field: &str, name: &str, bytes_max: usize, also: &[u8]) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(invalid(field, "must not be empty"));
    }
    if name.len() > bytes_max {
        return Err(invalid(field, format!("at most {bytes_max} bytes, is {}", name.len())));
    }
    let known = name.bytes().all(|byte| plain(byte) || also.contains(&byte));
    if !known || !name.as_bytes()[0].is_ascii_alphanumeric() {
        return Err(invalid(field, "letters, digits, '.', '_' and '-' only, beginning with a letter or a digit"));
    }
    Ok(())
}

/// An id of a task or a node: `/` and `:` may stand in it.
pub(crate) fn check_id(field: &str, id: &str) -> Result<(), Fault> {
    check_name(field, id, ID_BYTES_MAX, b"/:@")
}

pub(crate) fn check_bytes(field: &str, bytes: usize, bytes_max: usize) -> Result<(), Fault> {
    if bytes > bytes_max {
        return Err(invalid(field, format!("at most {bytes_max} bytes, is {bytes}")));
    }
    Ok(())
}

/// A SHA-256.
pub(crate) fn check_digest(field: &str, digest: &[u8]) -> Result<(), Fault> {
    if digest.len() != 32 {
        return Err(invalid(field, format!("a SHA-256 has 32 bytes, this has {}", digest.len())));
    }
    Ok(())
}

pub(crate) fn check_resources(field: &str, resources: &Resources) -> Result<(), Fault> {
    let numbers = [
        ("cpu_milli", resources.cpu_milli, CPU_MILLI_MAX),
        ("memory_bytes", resources.memory_bytes, MEMORY_BYTES_MAX),
        ("gpus", u64::from(resources.gpus), u64::from(GPUS_MAX)),
        ("slots", u64::from(resources.slots), u64::from(SLOTS_MAX)),
    ];
    for (name, value, most) in numbers {
        if value > most {
            return Err(invalid(&format!("{field}.{name}"), format!("at most {most}, is {value}")));
        }
    }
    Ok(())
}

fn check_limits(field: &str, limits: &Limits) -> Result<(), Fault> {
    let numbers = [
        ("memory_bytes", limits.memory_bytes, MEMORY_BYTES_MAX),
        ("cpu_seconds", limits.cpu_seconds, LIMIT_MAX),
        ("open_files", limits.open_files, LIMIT_MAX),
        ("file_bytes", limits.file_bytes, LIMIT_MAX),
        ("processes", limits.processes, LIMIT_MAX),
        ("cpu_milli", limits.cpu_milli, CPU_MILLI_MAX),
    ];
    for (name, value, most) in numbers {
        if value > most {
            return Err(invalid(&format!("{field}.{name}"), format!("at most {most}, is {value}")));
        }
    }
    Ok(())
}

pub(crate) fn check_spec(field: &str, spec: &TaskSpec) -> Result<(), Fault> {
    check_bytes(field, spec.compute_size() as usize, SPEC_BYTES_MAX)?;
    check_resources(&format!("{field}.resources"), spec.get_resources())?;
    if !(0..=PRIORITY_MAX).contains(&spec.priority) {
        return Err(invalid(&format!("{field}.priority"), format!("0..{PRIORITY_MAX}, is {}", spec.priority)));
    }
    let lists = [
        ("constraints", spec.constraints.len()),
        ("env", spec.env.len()),
        ("preferred_nodes", spec.preferred_nodes.len()),
    ];
    for (name, len) in lists {
        if len > LABELS_MAX {
            return Err(invalid(&format!("{field}.{name}"), format!("at most {LABELS_MAX}, is {len}")));
        }
    }
    if spec.constraints.iter().any(|constraint| constraint.key.is_empty()) {
        return Err(invalid(&format!("{field}.constraints"), "a key must not be empty"));
    }
    check_limits(&format!("{field}.limits"), spec.get_limits())?;
    check_bytes(&format!("{field}.requirements"), spec.requirements.len(), REQUIREMENTS_BYTES_MAX)?;
    check_bytes(&format!("{field}.requirements_file"), spec.requirements_file.len(), NOTE_BYTES_MAX)?;
    if !spec.requirements.is_empty() && !spec.requirements_file.is_empty() {
        return Err(invalid(&format!("{field}.requirements"), "either their text or a file in the bundle, not both"));
    }
    if !matches!(spec.on_disconnect.as_str(), "" | "stop" | "continue") {
        return Err(invalid(&format!("{field}.on_disconnect"), "\"stop\" or \"continue\""));
    }
    Ok(())
}

/// At most `REASON_BYTES_MAX` bytes of a reason, cut between characters.
pub(crate) fn cut(reason: &str) -> String {
    cut_to(reason, REASON_BYTES_MAX)
}

/// The text, or as many whole characters of it as the bytes hold.
pub(crate) fn cut_to(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned()
}

/// SHA-256 over parts, each with its length, so that no two lists of parts share a hash.
pub(crate) fn hash_parts(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// The first bytes of a digest in hexadecimal, as people read it.
pub(crate) fn short_hex(bytes: &[u8]) -> String {
    bytes.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes a message of ours.
pub(crate) fn encode(message: &impl Message) -> Vec<u8> {
    message.write_to_bytes().expect("a message without required fields always encodes")
}
