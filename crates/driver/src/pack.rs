//! Many proposals in one entry: this saves protobuf, raft and key cost for each of them.
//!
//! A packed entry is one byte that names the framing, then for each payload its length (u32, little endian) and its bytes.
//! Empty data is the entry of a new leader and holds no payload. Any other framing is an error, never skipped: a replica that
//! skipped what it cannot read would differ from those that can.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{ENTRY_BYTES_MAX, ENTRY_PAYLOADS_MAX, PAYLOAD_BYTES_MAX};

/// The framing byte.
const FRAMING_V1: u8 = 1;
/// Bytes of the framing byte and of one length.
pub const FRAME_BYTES: usize = 1 + LENGTH_BYTES;
const LENGTH_BYTES: usize = 4;

/// Why an entry cannot be unpacked; the replica must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Written by a newer version, or damaged.
    #[error("failed to unpack an entry: its framing {0} is unknown")]
    UnknownFraming(u8),
    /// Damaged.
    #[error("failed to unpack an entry: it ends within a payload")]
    Truncated,
    /// Damaged, or written without the limits.
    #[error("failed to unpack an entry: a payload of {0} bytes is over the limit")]
    PayloadTooLarge(usize),
}

/// Packs as many of `payloads`, in order, as fit one entry. Gives the entry's data and how many it took (at least one).
///
/// Every payload must be within [`PAYLOAD_BYTES_MAX`]; the caller has refused larger ones.
pub fn pack_front<'a>(payloads: impl Iterator<Item = &'a Bytes>) -> (Bytes, usize) {
    let mut taken: Vec<&Bytes> = Vec::new();
    let mut size = 1;
    for payload in payloads {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a payload over the limit was refused at the door");
        let grown = size + LENGTH_BYTES + payload.len();
        if grown > ENTRY_BYTES_MAX || taken.len() == ENTRY_PAYLOADS_MAX {
            break;
        }
        size = grown;
        taken.push(payload);
    }
    let mut data = BytesMut::with_capacity(size);
    data.put_u8(FRAMING_V1);
    for payload in &taken {
        data.put_u32_le(u32::try_from(payload.len()).expect("a payload is within its limit"));
        data.put_slice(payload);
    }
    (data.freeze(), taken.len())
}

/// The payloads of an entry, without copying.
pub fn unpack(data: &Bytes) -> Result<Vec<Bytes>, UnpackError> {
    let Some(&framing) = data.first() else { return Ok(Vec::new()) };
    if framing != FRAMING_V1 {
        return Err(UnpackError::UnknownFraming(framing));
    }
    let mut payloads = Vec::new();
    let mut at = 1;
    while at < data.len() {
        let head: [u8; LENGTH_BYTES] =
            data.get(at..at + LENGTH_BYTES).and_then(|slice| slice.try_into().ok()).ok_or(UnpackError::Truncated)?;
        let length = u32::from_le_bytes(head) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(UnpackError::PayloadTooLarge(length));
        }
        at += LENGTH_BYTES;
        if data.len() - at < length {
            return Err(UnpackError::Truncated);
        }
        payloads.push(data.slice(at..at + length));
        at += length;
    }
    Ok(payloads)
}
