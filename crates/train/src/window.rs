//! A window: a range of a model's elements, numbered through its tensors in canonical order, and how its bytes are read and written.

use std::ops::Range;
use std::sync::Arc;

use crate::frame::{Layout, TensorSpec};
use crate::source::{Sink, Source, SourceError};

/// The part of one tensor that lies in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its number in canonical order.
    pub tensor: usize,
    /// Which of its elements; never none.
    pub elements: Range<usize>,
}

/// A range of elements.
#[derive(Debug)]
pub(crate) struct Window {
    /// In order.
    pub pieces: Vec<Piece>,
    /// The pieces as tensors of one dimension, with the names of theirs.
    pub layout: Arc<Layout>,
}

/// Cuts a model into windows.
#[derive(Debug)]
pub(crate) struct Windows<'a> {
    model: &'a Layout,
    /// Number of each tensor's first element; then that of all elements.
    firsts: Vec<usize>,
    at: usize,
    elements_max: usize,
}

impl<'a> Windows<'a> {
    /// Of `elements_max` elements each, but for the last one. A model without elements has one window without pieces.
    pub(crate) fn new(model: &'a Layout, elements_max: usize) -> Self {
        let mut firsts = Vec::with_capacity(model.tensors().len() + 1);
        let mut first = 0;
        for spec in model.tensors() {
            firsts.push(first);
            first += spec.elements();
        }
        firsts.push(first);
        Self { model, firsts, at: 0, elements_max: elements_max.max(1) }
    }

    fn window(&self, range: Range<usize>) -> Window {
        let (mut pieces, mut tensors) = (Vec::new(), Vec::new());
        let mut tensor = self.firsts.partition_point(|first| *first <= range.start).saturating_sub(1);
        while tensor < self.model.tensors().len() && self.firsts[tensor] < range.end {
            let (first, end) = (self.firsts[tensor], self.firsts[tensor + 1]);
            let (from, to) = (range.start.max(first), range.end.min(end));
            if from < to {
                let spec = &self.model.tensors()[tensor];
                pieces.push(Piece { tensor, elements: from - first..to - first });
                tensors.push(TensorSpec { name: spec.name.clone(), dtype: spec.dtype, shape: vec![to - from] });
            }
            tensor += 1;
        }
        Window { pieces, layout: Arc::new(Layout::of_part(tensors)) }
    }
}

impl Iterator for Windows<'_> {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        let elements = *self.firsts.last().expect("the number of all elements is there");
        let done = self.at > elements || (self.at == elements && elements > 0);
        if done {
            return None;
        }
        let end = elements.min(self.at.saturating_add(self.elements_max));
        let window = self.window(self.at..end);
        self.at = if elements == 0 { 1 } else { end };
        Some(window)
    }
}

/// Reads ranges of a source into `buffer`, those that adjoin at once, and gives the place of each there. The ranges do not overlap.
pub(crate) fn read_ranges(
    source: &dyn Source,
    wanted: &[Range<u64>],
    buffer: &mut Vec<u8>,
) -> Result<Vec<Range<usize>>, SourceError> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|index| wanted[*index].start);
    let length = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    buffer.resize(wanted.iter().map(length).sum(), 0);
    let mut places = vec![0..0; wanted.len()];
    let (mut at, mut from) = (0, 0);
    for (position, index) in order.iter().enumerate() {
        let end = at + length(&wanted[*index]);
        places[*index] = at..end;
        at = end;
        let next = order.get(position + 1).map(|next| wanted[*next].start);
        if next != Some(wanted[*index].end) && from < at {
            let start = wanted[*index].end - (at - from) as u64;
            source.read_at(start, &mut buffer[from..at])?;
            from = at;
        }
    }
    Ok(places)
}

/// Writes `data`, the concatenation of what belongs at `starts`, (place in the file, bytes) each, with one write for those that adjoin.
pub(crate) fn write_ranges(
    sink: &mut dyn Sink,
    starts: impl IntoIterator<Item = (u64, usize)>,
    data: &[u8],
) -> Result<(), SourceError> {
    let mut run: Option<(u64, Range<usize>)> = None;
    let mut at = 0;
    for (start, bytes) in starts {
        let place = at..at + bytes;
        at = place.end;
        run = match run {
            Some((first, held)) if first + held.len() as u64 == start => Some((first, held.start..place.end)),
            other => {
                if let Some((first, held)) = other {
                    sink.write_at(first, &data[held])?;
                }
                Some((start, place))
            }
        };
    }
    match run {
        Some((first, held)) => sink.write_at(first, &data[held]),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Dtype;

    fn model(sizes: &[usize]) -> Layout {
        let tensors = sizes.iter().enumerate();
        let spec =
            |(i, size): (usize, &usize)| TensorSpec { name: format!("{i:02}"), dtype: Dtype::F32, shape: vec![*size] };
        Layout::new(tensors.map(spec).collect()).expect("a layout")
    }

    #[test]
    fn windows_have_every_element_once_in_order_and_no_empty_piece() {
        for sizes in [&[0, 3, 0, 0, 5, 1, 0][..], &[1], &[7, 7], &[0, 0]] {
            let layout = model(sizes);
            for elements_max in 1..=layout.elements() + 1 {
                let mut found = Vec::new();
                for window in Windows::new(&layout, elements_max) {
                    assert!(window.layout.elements() <= elements_max);
                    assert_eq!(window.layout.tensors().len(), window.pieces.len());
                    for piece in window.pieces {
                        assert!(!piece.elements.is_empty());
                        found.extend(piece.elements.map(|element| (piece.tensor, element)));
                    }
                }
                let all = sizes.iter().enumerate().flat_map(|(tensor, size)| (0..*size).map(move |i| (tensor, i)));
                assert_eq!(found, all.collect::<Vec<_>>());
            }
        }
        assert_eq!(Windows::new(&model(&[0]), 4).count(), 1, "what is checked once per window is checked once");
    }

    struct Counted<'a>(&'a [u8], std::cell::Cell<usize>);

    impl Source for Counted<'_> {
        fn total_bytes(&self) -> u64 {
            self.0.total_bytes()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            self.1.set(self.1.get() + 1);
            self.0.read_at(offset, buffer)
        }
    }

    #[test]
    fn ranges_that_adjoin_are_one_read_and_one_write_whatever_their_order() {
        let bytes: Vec<u8> = (0..40).collect();
        let source = Counted(&bytes, std::cell::Cell::new(0));
        let wanted = [8..12, 20..20, 0..4, 4..8, 30..33];
        let mut buffer = vec![9; 3];
        let places = read_ranges(&source, &wanted, &mut buffer).expect("within the file");
        for (range, place) in wanted.iter().zip(places) {
            assert_eq!(buffer[place], bytes[range.start as usize..range.end as usize]);
        }
        assert_eq!(source.1.get(), 2);
        assert!(read_ranges(&source, &[39..41, 0..1], &mut buffer).is_err());
        let mut out: Vec<u8> = Vec::new();
        write_ranges(&mut out, [(2, 2), (4, 1), (0, 2)], &[1, 2, 3, 4, 5]).expect("memory");
        assert_eq!(out, [4, 5, 1, 2, 3]);
    }
}
