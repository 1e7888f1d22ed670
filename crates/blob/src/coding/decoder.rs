//! Stripe by stripe from k fragments: the artifact's bytes (`Decoder`), or a fragment that was lost (`Rebuild`). Memory: the lost shards of one
//! stripe. Stripes may come in any order, so that a range is read without what is before it.

use super::combination::Combination;
use super::layout::{shard_bytes, Layout};
use super::{Coding, CodingError};

/// The k fragments that are read: data before parity, then by number. More may be there; none is read in vain.
fn sources(coding: Coding, present: &[usize]) -> Result<Vec<usize>, CodingError> {
    let mut sources = present.to_vec();
    sources.sort_unstable();
    if let Some(twice) = sources.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CodingError::FragmentTwice { fragment: twice[0] });
    }
    if let Some(last) = sources.last() {
        coding.check_fragment(*last)?;
    }
    if sources.len() < coding.k() {
        return Err(CodingError::TooFewFragments { needed: coding.k(), found: sources.len() });
    }
    sources.truncate(coding.k());
    Ok(sources)
}

/// The shards' length, if there is one for each source and all have it.
fn check_shards(layout: Layout, sources: &[usize], stripe: u64, shards: &[&[u8]]) -> Result<usize, CodingError> {
    let expected = shard_bytes(layout.coding(), layout.stripe_bytes(stripe)?);
    if shards.len() != sources.len() {
        return Err(CodingError::ShardCount { expected: sources.len(), found: shards.len() });
    }
    match sources.iter().zip(shards).find(|(_, shard)| shard.len() != expected) {
        None => Ok(expected),
        Some((fragment, shard)) => {
            Err(CodingError::ShardLength { fragment: *fragment, stripe, expected, found: shard.len() })
        }
    }
}

/// Reads an artifact from k of its fragments.
pub struct Decoder {
    layout: Layout,
    sources: Vec<usize>,
    /// For each data fragment: which source it is, or which of the lost.
    data: Vec<Shard>,
    /// None if no data fragment is lost.
    lost: Option<Combination>,
}

#[derive(Clone, Copy)]
enum Shard {
    Source(usize),
    Lost(usize),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Decoder {{ layout: {:?}, sources: {:?} }}", self.layout, self.sources)
    }
}

impl Decoder {
    /// From the fragments whose numbers are `present`, k at least.
    pub fn new(layout: Layout, present: &[usize]) -> Result<Self, CodingError> {
        let coding = layout.coding();
        let sources = sources(coding, present)?;
        if coding.is_copies() {
            return Ok(Self { layout, sources, data: vec![Shard::Source(0)], lost: None });
        }
        let mut lost = Vec::new();
        let data = (0..coding.k())
            .map(|fragment| match sources.iter().position(|source| *source == fragment) {
                Some(number) => Shard::Source(number),
                None => {
                    lost.push(fragment);
                    Shard::Lost(lost.len() - 1)
                }
            })
            .collect();
        let lost = (!lost.is_empty()).then(|| Combination::new(coding, &sources, &lost));
        Ok(Self { layout, sources, data, lost })
    }

    /// The k fragments whose shards `stripe` wants, in this order.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// Whether the sources are the plain bytes, so that a range can be read by `Layout::locate` alone.
    pub fn is_plain(&self) -> bool {
        self.lost.is_none()
    }

    /// The artifact's bytes in a stripe, in k parts; each is a part of `shards` or was made anew. `shards` are the sources' of this stripe.
    pub fn stripe<'shards>(
        &'shards mut self,
        stripe: u64,
        shards: &[&'shards [u8]],
    ) -> Result<Vec<&'shards [u8]>, CodingError> {
        let length = check_shards(self.layout, &self.sources, stripe, shards)?;
        if let Some(lost) = &mut self.lost {
            lost.make(shards);
        }
        let lost = self.lost.as_ref();
        let whole = |shard: &Shard| match (*shard, lost) {
            (Shard::Source(number), _) => shards[number],
            (Shard::Lost(number), Some(lost)) => lost.target(number, length),
            (Shard::Lost(_), None) => unreachable!("what is lost is combined"),
        };
        let part = |(fragment, shard)| Ok(&whole(shard)[..self.layout.data_bytes(stripe, fragment)?]);
        self.data.iter().enumerate().map(part).collect()
    }
}

/// Makes one lost fragment, data or parity, from k others.
pub struct Rebuild {
    layout: Layout,
    sources: Vec<usize>,
    /// None for plain copies.
    lost: Option<Combination>,
}

impl std::fmt::Debug for Rebuild {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Rebuild {{ layout: {:?}, sources: {:?} }}", self.layout, self.sources)
    }
}

impl Rebuild {
    /// Fragment `lost` from those whose numbers are `present`, k at least besides it.
    pub fn new(layout: Layout, present: &[usize], lost: usize) -> Result<Self, CodingError> {
        let coding = layout.coding();
        coding.check_fragment(lost)?;
        let present: Vec<usize> = present.iter().copied().filter(|fragment| *fragment != lost).collect();
        let sources = sources(coding, &present)?;
        let lost = (!coding.is_copies()).then(|| Combination::new(coding, &sources, &[lost]));
        Ok(Self { layout, sources, lost })
    }

    /// The k fragments whose shards `stripe` wants, in this order.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// The lost shard of a stripe, zeros at its end included. `shards` are the sources' of this stripe.
    pub fn stripe<'shards>(
        &'shards mut self,
        stripe: u64,
        shards: &[&'shards [u8]],
    ) -> Result<&'shards [u8], CodingError> {
        let length = check_shards(self.layout, &self.sources, stripe, shards)?;
        let Some(lost) = &mut self.lost else {
            return Ok(shards[0]);
        };
        lost.make(shards);
        Ok(lost.target(0, length))
    }
}
