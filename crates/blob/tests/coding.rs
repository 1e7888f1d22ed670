//! Bytes to fragments and back: what holds for all inputs, and what is on disk for some.

use proptest::prelude::*;
use proptest::sample::Index;
use raftgrid_blob::coding::{
    Coding, CodingError, Decoder, Encoder, Layout, Rebuild, CODED_BYTES_MIN, CODE_PLAIN_COPIES, DATA_FRAGMENTS_MAX,
    PARITY_FRAGMENTS_MAX, SHARD_ALIGN_BYTES, UNIT_BYTES,
};
use raftgrid_blob::placement::failures_survived;
use reed_solomon_simd::engine::{DefaultEngine, Engine, Naive, NoSimd};
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};
use sha2::{Digest, Sha256};

/// The same on every machine and in every version of any library: xorshift.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| word()).take(length).collect()
}

fn encoded(coding: Coding, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut fragments = vec![Vec::new(); coding.fragments()];
    let mut encoder = Encoder::new(coding).unwrap();
    let total_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
    for piece in pieces {
        let mut rest = *piece;
        while let Some(stripe) = encoder.next_stripe(&mut rest) {
            for (fragment, shard) in fragments.iter_mut().zip(stripe.shards()) {
                fragment.extend_from_slice(shard);
                // A stripe that is given again and again must not fill the memory.
                assert!(fragment.len() as u64 <= coding.fragment_bytes(total_bytes), "too many stripes");
            }
        }
        assert!(rest.is_empty());
    }
    if let Some(stripe) = encoder.finish() {
        for (fragment, shard) in fragments.iter_mut().zip(stripe.shards()) {
            fragment.extend_from_slice(shard);
        }
    }
    assert_eq!(encoder.total_bytes(), total_bytes);
    fragments
}

fn part(fragment: &[u8], range: std::ops::Range<u64>) -> &[u8] {
    &fragment[range.start as usize..range.end as usize]
}

fn decoded(layout: Layout, fragments: &[Vec<u8>], present: &[usize]) -> Vec<u8> {
    let mut decoder = Decoder::new(layout, present).unwrap();
    assert_eq!(decoder.sources().len(), layout.coding().k());
    assert!(decoder.sources().iter().all(|source| present.contains(source)));
    let sources = decoder.sources().to_vec();
    let mut out = Vec::new();
    for stripe in 0..layout.stripes() {
        let range = layout.shard_range(stripe).unwrap();
        let shards: Vec<&[u8]> = sources.iter().map(|source| part(&fragments[*source], range.clone())).collect();
        decoder.stripe(stripe, &shards).unwrap().iter().for_each(|part| out.extend_from_slice(part));
    }
    out
}

fn rebuilt(layout: Layout, fragments: &[Vec<u8>], present: &[usize], lost: usize) -> Vec<u8> {
    let mut rebuild = Rebuild::new(layout, present, lost).unwrap();
    let sources = rebuild.sources().to_vec();
    assert!(!sources.contains(&lost));
    let mut out = Vec::new();
    for stripe in 0..layout.stripes() {
        let range = layout.shard_range(stripe).unwrap();
        let shards: Vec<&[u8]> = sources.iter().map(|source| part(&fragments[*source], range.clone())).collect();
        out.extend_from_slice(rebuild.stripe(stripe, &shards).unwrap());
    }
    out
}

fn codings() -> impl Iterator<Item = Coding> {
    (1..=6).flat_map(|k| (0..=3).filter_map(move |m| Coding::new(k, m).ok()))
}

/// Every set of `size` out of 0..`count`, by the bits of a number.
fn subsets(count: usize, size: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..1u32 << count)
        .filter(move |bits| bits.count_ones() as usize == size)
        .map(move |bits| (0..count).filter(|number| bits >> number & 1 == 1).collect())
}

fn any_coding() -> impl Strategy<Value = Coding> {
    any::<Index>().prop_map(|index| {
        let all: Vec<Coding> = codings().collect();
        *index.get(&all)
    })
}

/// Sizes with the edges of stripes, units and groups among them.
fn any_size() -> impl Strategy<Value = usize> {
    let near =
        |step: usize| (0..=5 * 1024 * 1024 / step, 0..3usize).prop_map(move |(n, d)| (n * step + d).saturating_sub(1));
    prop_oneof![0..5 * 1024 * 1024usize, near(UNIT_BYTES), 0..300usize, near(UNIT_BYTES * 3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_k_fragments_give_the_artifact_however_it_was_cut(
        coding in any_coding(),
        size in any_size(),
        seed: u64,
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        order in any::<u64>(),
    ) {
        let artifact = bytes(size, seed);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(size + 1)).chain([0, size]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &artifact[pair[0]..pair[1]]).collect();
        let fragments = encoded(coding, &pieces);
        let layout = Layout::new(coding, size as u64);
        for fragment in &fragments {
            prop_assert_eq!(fragment.len() as u64, coding.fragment_bytes(size as u64));
        }
        prop_assert!(fragments == encoded(coding, &[&artifact]), "the cuts show");
        // A random order of the fragments: the first k are there, the others lost.
        let mut shuffled: Vec<usize> = (0..coding.fragments()).collect();
        shuffled.sort_by_key(|fragment| bytes(8, order ^ (*fragment as u64 + 1) << 32));
        let (present, lost) = shuffled.split_at(coding.k());
        prop_assert!(decoded(layout, &fragments, present) == artifact, "{coding:?} from {present:?}");
        for lost in lost {
            prop_assert!(rebuilt(layout, &fragments, present, *lost) == fragments[*lost], "{coding:?}: {lost} from {present:?}");
        }
    }

    #[test]
    fn a_range_is_where_the_layout_says(
        coding in any_coding(),
        size in any_size(),
        ends in any::<(Index, Index)>(),
    ) {
        let artifact = bytes(size, 7);
        let fragments = encoded(coding, &[&artifact]);
        let layout = Layout::new(coding, size as u64);
        let (one, other) = (ends.0.index(size + 1) as u64, ends.1.index(size + 1) as u64);
        let range = one.min(other)..one.max(other);
        let pieces: Vec<_> = layout.locate(range.clone()).unwrap().collect();
        let mut read = Vec::new();
        let stripes = layout.stripes_of(range.clone()).unwrap();
        for piece in &pieces {
            prop_assert!(piece.bytes > 0 && piece.bytes <= UNIT_BYTES);
            prop_assert!(piece.fragment < coding.k());
            prop_assert!(stripes.contains(&piece.stripe));
            let shard = layout.shard_range(piece.stripe).unwrap();
            prop_assert!(shard.start <= piece.offset && piece.offset + piece.bytes as u64 <= shard.end);
            read.extend_from_slice(part(&fragments[piece.fragment], piece.offset..piece.offset + piece.bytes as u64));
        }
        prop_assert!(read == artifact[range.start as usize..range.end as usize]);
        prop_assert_eq!(stripes.end - stripes.start, {
            let mut touched: Vec<u64> = pieces.iter().map(|piece| piece.stripe).collect();
            touched.dedup();
            touched.len() as u64
        });
        // One read of a fragment has just its pieces.
        for fragment in 0..coding.k() {
            let own: Vec<_> = pieces.iter().filter(|piece| piece.fragment == fragment).collect();
            let found = layout.fragment_range(fragment, range.clone()).unwrap();
            prop_assert_eq!(found.end - found.start, own.iter().map(|piece| piece.bytes as u64).sum::<u64>());
            if let (Some(first), Some(last)) = (own.first(), own.last()) {
                prop_assert_eq!(found, first.offset..last.offset + last.bytes as u64);
            }
        }
    }
}

#[test]
fn every_k_of_the_fragments_are_enough() {
    for coding in codings() {
        for size in [coding.stripe_bytes() + 1000, 1, 0] {
            let artifact = bytes(size, 3);
            let fragments = encoded(coding, &[&artifact]);
            let layout = Layout::new(coding, size as u64);
            for present in subsets(coding.fragments(), coding.k()) {
                assert!(decoded(layout, &fragments, &present) == artifact, "{coding:?} from {present:?}, {size} bytes");
            }
        }
    }
}

#[test]
fn the_widest_code_is_read_from_its_parity_alone_and_from_a_mixture() {
    let coding = Coding::new(DATA_FRAGMENTS_MAX, PARITY_FRAGMENTS_MAX).unwrap();
    let artifact = bytes(coding.stripe_bytes() + 12_345, 9);
    let fragments = encoded(coding, &[&artifact]);
    let layout = Layout::new(coding, artifact.len() as u64);
    let parity: Vec<usize> = (coding.k()..coding.fragments()).collect();
    let odd: Vec<usize> = (1..coding.fragments()).step_by(2).collect();
    for present in [parity, odd] {
        assert!(decoded(layout, &fragments, &present) == artifact, "from {present:?}");
        for lost in (0..coding.fragments()).filter(|fragment| !present.contains(fragment)) {
            assert!(rebuilt(layout, &fragments, &present, lost) == fragments[lost], "{lost} from {present:?}");
        }
    }
}

#[test]
fn with_more_than_k_fragments_the_plain_ones_are_read() {
    let layout = Layout::new(Coding::new(3, 2).unwrap(), 1_000_000);
    let decoder = Decoder::new(layout, &[4, 2, 3, 1, 0]).unwrap();
    assert_eq!((decoder.sources(), decoder.is_plain()), (&[0, 1, 2][..], true));
    let decoder = Decoder::new(layout, &[4, 2, 3, 1]).unwrap();
    assert_eq!((decoder.sources(), decoder.is_plain()), (&[1, 2, 3][..], false));
}

#[test]
fn the_first_fragments_are_plain_and_one_parity_is_the_xor_of_the_data() {
    let coding = Coding::new(2, 1).unwrap();
    let artifact = bytes(2 * UNIT_BYTES + 100, 5);
    let fragments = encoded(coding, &[&artifact]);
    assert_eq!(fragments[0][..UNIT_BYTES], artifact[..UNIT_BYTES]);
    assert_eq!(fragments[1][..UNIT_BYTES], artifact[UNIT_BYTES..2 * UNIT_BYTES]);
    // 100 bytes are 50 a shard, which are 64: the first takes them, the other has 36 and zeros.
    assert_eq!(fragments[0][UNIT_BYTES..], artifact[2 * UNIT_BYTES..][..SHARD_ALIGN_BYTES]);
    assert_eq!(fragments[1][UNIT_BYTES..][..36], artifact[2 * UNIT_BYTES + 64..]);
    assert_eq!(fragments[1][UNIT_BYTES + 36..], [0; 28]);
    let xor: Vec<u8> = fragments[0].iter().zip(&fragments[1]).map(|(one, other)| one ^ other).collect();
    assert!(fragments[2] == xor);
}

#[test]
fn every_engine_of_the_library_gives_the_same_parity() {
    fn parity<E: Engine>(engine: E, shards: &[&[u8]], m: usize) -> Vec<Vec<u8>> {
        let mut encoder = HighRateEncoder::new(shards.len(), m, shards[0].len(), engine, None).unwrap();
        for shard in shards {
            encoder.add_original_shard(shard).unwrap();
        }
        let result = encoder.encode().unwrap();
        result.recovery_iter().map(<[u8]>::to_vec).collect()
    }
    for coding in codings().filter(|coding| !coding.is_copies()) {
        let artifact = bytes(coding.stripe_bytes(), 11);
        let fragments = encoded(coding, &[&artifact]);
        let shards: Vec<&[u8]> = artifact.chunks(UNIT_BYTES).collect();
        let expected = &fragments[coding.k()..];
        assert!(parity(DefaultEngine::new(), &shards, coding.m()) == expected);
        assert!(parity(NoSimd::new(), &shards, coding.m()) == expected);
        assert!(parity(Naive::new(), &shards, coding.m()) == expected);
    }
}

/// The library's decoder takes another way (it evaluates the polynomial of the erasures); both must end at the same bytes.
#[test]
fn lost_shards_are_those_of_the_librarys_own_decoder() {
    for coding in codings().filter(|coding| !coding.is_copies()) {
        let (k, m) = (coding.k(), coding.m());
        // No codeword: shards out of nowhere, so that nothing but the code says what the lost ones are.
        let shards: Vec<Vec<u8>> = (0..k + m).map(|fragment| bytes(640, 100 + fragment as u64)).collect();
        for present in subsets(k + m, k) {
            let mut oracle = HighRateDecoder::new(k, m, 640, DefaultEngine::new(), None).unwrap();
            for fragment in &present {
                match fragment.checked_sub(k) {
                    None => oracle.add_original_shard(*fragment, &shards[*fragment]).unwrap(),
                    Some(index) => oracle.add_recovery_shard(index, &shards[*fragment]).unwrap(),
                }
            }
            let expected = oracle.decode().unwrap();
            let layout = Layout::new(coding, 640 * k as u64);
            let mut decoder = Decoder::new(layout, &present).unwrap();
            let given: Vec<&[u8]> = decoder.sources().iter().map(|source| &shards[*source][..]).collect();
            let found = decoder.stripe(0, &given).unwrap();
            for (fragment, found) in found.into_iter().enumerate() {
                assert_eq!(
                    found,
                    expected.restored_original(fragment).unwrap_or(&shards[fragment]),
                    "{coding:?} from {present:?}"
                );
            }
        }
    }
}

/// What is on disk. If this fails, the library or the layout has changed: artifacts written before could not be read. Then the code needs
/// another `code_id`, and the old one must stay readable.
#[test]
fn fragments_on_disk_are_those_of_the_golden_vectors() {
    let golden = include_str!("golden/coding.txt");
    let mut found = String::new();
    let all = &[0, 1, 100, 65_536, 131_072, 1_000_003][..];
    let shapes = [(1, 1, all), (2, 1, all), (3, 1, all), (3, 2, all), (4, 3, all), (6, 3, all), (16, 16, &all[5..])];
    for (k, m, sizes) in shapes {
        let coding = Coding::new(k, m).unwrap();
        for &size in sizes {
            for (number, fragment) in encoded(coding, &[&bytes(size, 42)]).iter().enumerate() {
                let digest: String = Sha256::digest(fragment).iter().map(|byte| format!("{byte:02x}")).collect();
                let id = coding.code_id();
                found += &format!("code {id:#08x} bytes {size} fragment {number} length {} {digest}\n", fragment.len());
            }
        }
    }
    // RAFTGRID_GOLDEN=write writes it anew, for a new code.
    if std::env::var_os("RAFTGRID_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/coding.txt"), &found).unwrap();
        return;
    }
    for (found, golden) in found.lines().zip(golden.lines()) {
        assert_eq!(found, golden);
    }
    assert_eq!(found.lines().count(), golden.lines().count());
}

#[test]
fn the_code_follows_from_live_voters_failures_and_size() {
    let coded = CODED_BYTES_MIN;
    for (voters, live, size, k, m) in [
        (3, 3, coded, 2, 1),
        (3, 3, coded - 1, 1, 1),
        (3, 3, 0, 1, 1),
        (3, 2, coded, 1, 1),
        (5, 5, coded, 3, 2),
        (5, 4, coded, 2, 2),
        (5, 3, coded, 1, 2),
        (4, 4, coded, 3, 1),
        (7, 7, u64::MAX, 4, 3),
        // No failure is survived: no parity, and to spread it would only make its loss likelier.
        (1, 1, coded, 1, 0),
        (2, 2, coded, 1, 0),
        // No majority: nothing can be committed, but nothing breaks.
        (5, 1, coded, 1, 2),
        // More voters than a code is wide for.
        (41, 41, coded, 1, 20),
        (31, 31, coded, 16, 15),
    ] {
        let coding = Coding::choose(live, failures_survived(voters), size);
        assert_eq!((coding.k(), coding.m()), (k, m), "{live} of {voters}, {size} bytes");
        assert!(coding.fragments() <= live.max(m + 1));
    }
}

#[test]
fn a_code_id_names_its_code_for_ever() {
    assert_eq!(Coding::copies(2).code_id(), CODE_PLAIN_COPIES);
    assert_eq!(CODE_PLAIN_COPIES, 0);
    assert_eq!(Coding::new(2, 1).unwrap().code_id(), 0x01_02_01);
    assert_eq!(Coding::new(3, 2).unwrap().code_id(), 0x01_03_02);
    for coding in codings() {
        assert_eq!(Coding::from_code_id(coding.code_id(), coding.fragments()), Ok(coding));
    }
    for code_id in [1, 0x01_00_01, 0x01_01_01, 0x01_02_00, 0x01_11_01, 0x02_02_01, 0x0101_0201] {
        assert_eq!(Coding::from_code_id(code_id, 3), Err(CodingError::UnknownCode { code_id }));
    }
    let count = |code_id, found| Err(CodingError::FragmentCount { code_id, found });
    assert_eq!(Coding::from_code_id(0x01_02_01, 4), count(0x01_02_01, 4));
    assert_eq!(Coding::from_code_id(CODE_PLAIN_COPIES, 0), count(0, 0));
}

#[test]
fn wrong_input_is_refused_by_name() {
    assert_eq!(Coding::new(0, 1), Err(CodingError::Unsupported { k: 0, m: 1 }));
    assert_eq!(Coding::new(2, 0), Err(CodingError::Unsupported { k: 2, m: 0 }));
    assert_eq!(Coding::new(17, 1), Err(CodingError::Unsupported { k: 17, m: 1 }));

    let layout = Layout::new(Coding::new(3, 2).unwrap(), 200_000);
    let refused = |present: &[usize]| Decoder::new(layout, present).unwrap_err();
    assert_eq!(refused(&[0, 4]), CodingError::TooFewFragments { needed: 3, found: 2 });
    assert_eq!(refused(&[]), CodingError::TooFewFragments { needed: 3, found: 0 });
    assert_eq!(refused(&[0, 1, 5]), CodingError::NoSuchFragment { fragment: 5, fragments: 5 });
    assert_eq!(refused(&[0, 1, 1]), CodingError::FragmentTwice { fragment: 1 });
    let copies = Layout::new(Coding::copies(1), 10);
    assert_eq!(Decoder::new(copies, &[]).unwrap_err(), CodingError::TooFewFragments { needed: 1, found: 0 });
    assert_eq!(
        Rebuild::new(layout, &[0, 1, 2], 2).unwrap_err(),
        CodingError::TooFewFragments { needed: 3, found: 2 },
        "a lost fragment is no source of itself"
    );
    assert_eq!(
        Rebuild::new(layout, &[0, 1, 2], 5).unwrap_err(),
        CodingError::NoSuchFragment { fragment: 5, fragments: 5 }
    );

    let shard = vec![0; UNIT_BYTES];
    let last = layout.shard_range(1).unwrap();
    let mut decoder = Decoder::new(layout, &[0, 2, 4]).unwrap();
    assert!(decoder.stripe(0, &[&shard, &shard, &shard]).is_ok());
    let refused = decoder.stripe(0, &[&shard, &shard]).unwrap_err();
    assert_eq!(refused, CodingError::ShardCount { expected: 3, found: 2 });
    let refused = decoder.stripe(0, &[&shard, &shard, &shard[1..]]).unwrap_err();
    assert_eq!(
        refused,
        CodingError::ShardLength { fragment: 4, stripe: 0, expected: UNIT_BYTES, found: UNIT_BYTES - 1 }
    );
    let refused = decoder.stripe(1, &[&shard, &shard, &shard]).unwrap_err();
    let expected = (last.end - last.start) as usize;
    assert_eq!(refused, CodingError::ShardLength { fragment: 0, stripe: 1, expected, found: UNIT_BYTES });
    let refused = decoder.stripe(2, &[&shard, &shard, &shard]).unwrap_err();
    assert_eq!(refused, CodingError::NoSuchStripe { stripe: 2, stripes: 2 });

    let beyond = CodingError::Range { start: 0, end: 200_001, total_bytes: 200_000 };
    assert_eq!(layout.locate(0..200_001).err(), Some(beyond.clone()));
    assert_eq!(layout.stripes_of(0..200_001), Err(beyond.clone()));
    assert_eq!(layout.fragment_range(0, 0..200_001), Err(beyond));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = layout.stripes_of(2..1);
    assert_eq!(reversed, Err(CodingError::Range { start: 2, end: 1, total_bytes: 200_000 }));
}
