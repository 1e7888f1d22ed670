use bytes::Bytes;
use proptest::prelude::*;

use crate::limits::{ENTRY_BYTES_MAX, ENTRY_PAYLOADS_MAX, PAYLOAD_BYTES_MAX};
use crate::pack::{pack_front, unpack, UnpackError};

/// Packs all, entry by entry.
fn pack_all(payloads: &[Bytes]) -> Vec<Bytes> {
    let mut entries = Vec::new();
    let mut rest = payloads;
    while !rest.is_empty() {
        let (data, taken) = pack_front(rest.iter());
        assert!(taken > 0 && data.len() <= ENTRY_BYTES_MAX);
        entries.push(data);
        rest = &rest[taken..];
    }
    entries
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked_in_order(sizes in proptest::collection::vec(
        prop_oneof![0usize..64, 0usize..4096, Just(PAYLOAD_BYTES_MAX)], 0..40)) {
        let payloads: Vec<Bytes> =
            sizes.iter().enumerate().map(|(i, size)| Bytes::from(vec![i as u8; *size])).collect();
        let unpacked: Vec<Bytes> =
            pack_all(&payloads).iter().flat_map(|data| unpack(data).expect("own framing")).collect();
        prop_assert_eq!(unpacked, payloads);
    }

    #[test]
    fn bytes_that_no_packer_wrote_never_panic_and_never_grow(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let size = data.len();
        if let Ok(payloads) = unpack(&Bytes::from(data)) {
            prop_assert!(payloads.iter().map(Bytes::len).sum::<usize>() <= size);
        }
    }
}

#[test]
fn an_entry_holds_no_more_payloads_than_a_position_can_number() {
    let payloads = vec![Bytes::new(); ENTRY_PAYLOADS_MAX + 1];
    let (data, taken) = pack_front(payloads.iter());
    assert_eq!(taken, ENTRY_PAYLOADS_MAX);
    assert_eq!(unpack(&data).map(|p| p.len()), Ok(ENTRY_PAYLOADS_MAX));
}

#[test]
fn an_unknown_framing_and_a_cut_entry_are_detected() {
    assert_eq!(unpack(&Bytes::from_static(&[2, 0, 0])), Err(UnpackError::UnknownFraming(2)));
    let (data, _) = pack_front([Bytes::from_static(b"abc")].iter());
    for cut in 2..data.len() {
        assert_eq!(unpack(&data.slice(..cut)), Err(UnpackError::Truncated), "cut at {cut}");
    }
    assert_eq!(unpack(&Bytes::new()), Ok(Vec::new()), "a new leader's entry has no payload");
}
