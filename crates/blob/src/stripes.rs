//! A whole artifact's file to its fragments and back, a stripe at a time: memory is that of a few stripes, whatever the artifact's size.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::coding::{CodingError, Decoder, Encoder, Layout, Rebuild, Stripe};
use crate::store::{BlobError, FragmentReader, FragmentWriter};

/// Why a file was not coded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum StripesError {
    /// A source cannot be read; without it, from others, it may go.
    #[error("failed to read source {source_number}: {cause}")]
    Source {
        /// Its place among the sources that were given.
        source_number: usize,
        /// Why.
        #[source]
        cause: BlobError,
    },
    /// The target cannot be written.
    #[error(transparent)]
    Target(BlobError),
    /// The arguments.
    #[error(transparent)]
    Coding(#[from] CodingError),
}

/// One fragment of an artifact whose bytes are all here, as it is read.
#[derive(Debug)]
pub struct FragmentOf {
    whole: Arc<FragmentReader>,
    layout: Layout,
    fragment: usize,
    encoder: Option<Encoder>,
    /// A stripe of the artifact.
    stripe: Vec<u8>,
    /// Its shard, and which it is of.
    shard: Vec<u8>,
    at: Option<u64>,
}

impl FragmentOf {
    /// Fragment `fragment` of `whole` by `layout`.
    pub fn new(whole: Arc<FragmentReader>, layout: Layout, fragment: usize) -> Self {
        Self { whole, layout, fragment, encoder: None, stripe: Vec::new(), shard: Vec::new(), at: None }
    }

    /// Bytes of the fragment.
    pub fn total_bytes(&self) -> u64 {
        self.layout.fragment_bytes()
    }

    /// Fills `buffer` from `offset` of the fragment, as far as there is data.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, StripesError> {
        if self.layout.coding().is_copies() {
            return self.whole.read_at(offset, buffer).map_err(whole_failed);
        }
        let wanted = self.total_bytes().saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let stripe = at / crate::coding::UNIT_BYTES as u64;
            if self.at != Some(stripe) {
                self.load(stripe)?;
            }
            let skip = (at % crate::coding::UNIT_BYTES as u64) as usize;
            let take = (wanted - done).min(self.shard.len() - skip);
            buffer[done..done + take].copy_from_slice(&self.shard[skip..skip + take]);
            done += take;
        }
        Ok(done)
    }

    fn load(&mut self, stripe: u64) -> Result<(), StripesError> {
        let Self { whole, layout, fragment, encoder, stripe: bytes, shard, at } = self;
        *at = None;
        if *fragment < layout.coding().k() {
            // Plain bytes of the artifact: no arithmetic, and nothing of its other shards is read.
            read_data_shard(whole, *layout, stripe, *fragment, shard)?;
            *at = Some(stripe);
            return Ok(());
        }
        let start = stripe * layout.coding().stripe_bytes() as u64;
        bytes.resize(layout.stripe_bytes(stripe)?, 0);
        read_exactly(whole, start, bytes).map_err(whole_failed)?;
        with_stripe(encoder, *layout, bytes, |coded| {
            shard.clear();
            shard.extend_from_slice(coded.shard(*fragment)?);
            Ok(())
        })?;
        *at = Some(stripe);
        Ok(())
    }
}

/// A data shard of a stripe: its bytes of the artifact, and zeros behind the artifact's end.
fn read_data_shard(
    whole: &FragmentReader,
    layout: Layout,
    stripe: u64,
    fragment: usize,
    shard: &mut Vec<u8>,
) -> Result<(), StripesError> {
    let range = layout.shard_range(stripe)?;
    let length = (range.end - range.start) as usize;
    let start = stripe * layout.coding().stripe_bytes() as u64 + (fragment * length) as u64;
    let data = layout.data_bytes(stripe, fragment)?;
    shard.clear();
    shard.resize(length, 0);
    read_exactly(whole, start, &mut shard[..data]).map_err(whole_failed)
}

/// Codes the bytes of one stripe, whichever it is.
fn with_stripe<T>(
    encoder: &mut Option<Encoder>,
    layout: Layout,
    bytes: &[u8],
    then: impl FnOnce(&Stripe<'_>) -> Result<T, StripesError>,
) -> Result<T, StripesError> {
    let full = bytes.len() == layout.coding().stripe_bytes();
    let mut made = match encoder.take() {
        Some(encoder) => encoder,
        None => Encoder::new(layout.coding())?,
    };
    let mut input = bytes;
    let first = made.next_stripe(&mut input);
    if full {
        let outcome = then(&first.expect("a full stripe was given"));
        *encoder = Some(made);
        return outcome;
    }
    drop(first);
    // What has ended takes no further stripe: the next one has an encoder of its own.
    let last = made.finish().expect("a part of a stripe was given");
    then(&last)
}

fn read_exactly(whole: &FragmentReader, start: u64, bytes: &mut [u8]) -> Result<(), BlobError> {
    let got = whole.read_at(start, bytes)?;
    if got == bytes.len() {
        return Ok(());
    }
    Err(BlobError::Refused(format!("it ends at {} instead of {}", start + got as u64, start + bytes.len() as u64)))
}

fn whole_failed(cause: BlobError) -> StripesError {
    StripesError::Source { source_number: 0, cause }
}

/// The SHA-256 of each fragment of `whole`; fragment `kept`, if one is named, is written into its writer, which is finished. One pass.
pub fn digests(
    whole: &FragmentReader,
    layout: Layout,
    mut kept: Option<(usize, &mut FragmentWriter)>,
) -> Result<Vec<[u8; 32]>, StripesError> {
    let mut hashes = vec![Sha256::new(); layout.coding().fragments()];
    let (mut encoder, mut bytes) = (None, Vec::new());
    for stripe in 0..layout.stripes() {
        bytes.resize(layout.stripe_bytes(stripe)?, 0);
        read_exactly(whole, stripe * layout.coding().stripe_bytes() as u64, &mut bytes).map_err(whole_failed)?;
        with_stripe(&mut encoder, layout, &bytes, |coded| {
            for (fragment, (shard, hash)) in coded.shards().zip(&mut hashes).enumerate() {
                match &mut kept {
                    // Its writer hashes what it writes.
                    Some((kept, writer)) if *kept == fragment => writer.write(shard).map_err(StripesError::Target)?,
                    _ => hash.update(shard),
                }
            }
            Ok(())
        })?;
    }
    let mut digests: Vec<[u8; 32]> = hashes.into_iter().map(|hash| hash.finalize().into()).collect();
    if let Some((fragment, writer)) = kept {
        digests[fragment] = writer.finish(Some(layout.fragment_bytes()), None).map_err(StripesError::Target)?;
    }
    Ok(digests)
}

/// Fragments that are here: (number, file). The shards of one stripe are read at a time.
struct Sources<'a> {
    layout: Layout,
    readers: Vec<(usize, &'a FragmentReader)>,
    shards: Vec<Vec<u8>>,
}

impl<'a> Sources<'a> {
    /// Those of `given` with the numbers `wanted`, in that order; each with its place in `given`.
    fn new(layout: Layout, given: &'a [(usize, FragmentReader)], wanted: &[usize]) -> Self {
        let place = |number: &usize| {
            let place = given.iter().position(|(given, _)| given == number);
            let place = place.expect("sources are chosen among those that are present");
            (place, &given[place].1)
        };
        Self { layout, readers: wanted.iter().map(place).collect(), shards: vec![Vec::new(); wanted.len()] }
    }

    fn read(&mut self, stripe: u64) -> Result<Vec<&[u8]>, StripesError> {
        let range = self.layout.shard_range(stripe)?;
        for ((place, reader), shard) in self.readers.iter().zip(&mut self.shards) {
            shard.resize((range.end - range.start) as usize, 0);
            read_exactly(reader, range.start, shard)
                .map_err(|cause| StripesError::Source { source_number: *place, cause })?;
        }
        Ok(self.shards.iter().map(Vec::as_slice).collect())
    }
}

/// Writes the artifact out of k of `sources`, (number, file) each; whoever calls finishes `target`, by the artifact's SHA-256.
pub fn decode(
    layout: Layout,
    sources: &[(usize, FragmentReader)],
    target: &mut FragmentWriter,
) -> Result<(), StripesError> {
    let present: Vec<usize> = sources.iter().map(|(number, _)| *number).collect();
    let mut decoder = Decoder::new(layout, &present)?;
    let wanted = decoder.sources().to_vec();
    let mut sources = Sources::new(layout, sources, &wanted);
    for stripe in 0..layout.stripes() {
        let shards = sources.read(stripe)?;
        for part in decoder.stripe(stripe, &shards)? {
            target.write(part).map_err(StripesError::Target)?;
        }
    }
    Ok(())
}

/// Writes fragment `lost` out of k of `sources`; whoever calls finishes `target`, by the fragment's SHA-256.
pub fn rebuild(
    layout: Layout,
    sources: &[(usize, FragmentReader)],
    lost: usize,
    target: &mut FragmentWriter,
) -> Result<(), StripesError> {
    let present: Vec<usize> = sources.iter().map(|(number, _)| *number).collect();
    let mut rebuild = Rebuild::new(layout, &present, lost)?;
    let wanted = rebuild.sources().to_vec();
    let mut sources = Sources::new(layout, sources, &wanted);
    for stripe in 0..layout.stripes() {
        let shards = sources.read(stripe)?;
        target.write(rebuild.stripe(stripe, &shards)?).map_err(StripesError::Target)?;
    }
    Ok(())
}
