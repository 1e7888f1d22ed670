//! A round's sum over files that are read and written a window at a time: memory is that of a few windows, whatever the size of the model and
//! the number of shards.
//!
//! For each window of the model's elements, in order: the window of each contribution in shard order goes into a combiner, the optimiser steps
//! the window of model and state with what comes out, and both are written. What is about all elements has a pass of its own (the norm by
//! which a contribution is clipped) or runs on from window to window (the norm of the combined contribution, in its fixed tree). Elements are
//! independent of each other in everything else, so where a window ends cannot enter a result: the bytes are those of [`crate::aggregate`]
//! (`tests/train/streams.rs` holds the two together).

use std::rc::Rc;

use crate::aggregate::TrainError;
use crate::combine::{Combiner, Strategy};
use crate::contribution::{clipping_factor, Contribution};
use crate::element::Element;
use crate::encoding::Values;
use crate::frame::{Dtype, Layout, PlacedFrame, TensorSpec};
use crate::guard::{GuardError, GuardLimits};
use crate::header::read_header;
use crate::limits::{FRAME_BYTES_MAX, HEADERS_KEPT_MAX};
use crate::mean::Mean;
use crate::norm::RunningNorm;
use crate::optimizer::elementwise::{state_layout, step_number, step_tensor, Elementwise};
use crate::optimizer::{OptimizerError, Visit, STEP_NAME};
use crate::placed::{check_size, check_window_finite, read_model, PlacedContribution};
use crate::rule::RoundRule;
use crate::source::{Sink, Source, SourceError};
use crate::window::{read_ranges, write_ranges, Window, Windows};

/// How the sum opens the contribution with a number in the list: (number) to its bytes.
pub type Open<'a> = dyn FnMut(usize) -> Result<Rc<dyn Source + 'a>, SourceError> + 'a;

/// What a round is summed from.
pub struct Inputs<'a> {
    /// Model r.
    pub model: &'a dyn Source,
    /// State r; None: no step was done yet.
    pub state: Option<&'a dyn Source>,
    /// The sealed list: (shard, weight), shards strictly rising. Weight 0 counts as 1.
    pub contributions: &'a [(u32, f64)],
    /// Called once for each contribution and window; the bytes must be the same each time.
    pub open: &'a mut Open<'a>,
}

/// Where it goes: canonical files.
pub struct Outputs<'a> {
    /// Model r + 1: written in order.
    pub model: &'a mut dyn Sink,
    /// State r + 1; a header without tensors where the optimiser keeps none.
    pub state: &'a mut dyn Sink,
}

/// How much is read at a time. Whatever it is, the results have the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSizes {
    /// Bytes of a window of the mean, for elements of eight bytes; half as many for four. A few buffers of this size are held.
    pub sum_bytes: usize,
    /// Bytes of all contributions together in a window of an order statistic, for elements of eight bytes.
    pub sorted_bytes: usize,
}

/// What is known when both files are whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summed {
    /// Σw.
    pub weight_sum: f64,
    /// Euclidean norm of the combined contribution over all elements.
    pub gradient_norm: f64,
}

/// Sums a round. On an error what was written is worth nothing.
pub fn sum_streamed(
    inputs: Inputs<'_>,
    rule: RoundRule,
    sizes: WindowSizes,
    outputs: Outputs<'_>,
) -> Result<Summed, TrainError> {
    let model = read_model(inputs.model, &GuardLimits::default()).map_err(TrainError::Model)?;
    rule.optimizer.visit(Summing { inputs, rule, sizes, outputs, model })
}

struct Summing<'a, 'o> {
    inputs: Inputs<'a>,
    rule: RoundRule,
    sizes: WindowSizes,
    outputs: Outputs<'o>,
    model: PlacedFrame,
}

impl Visit for Summing<'_, '_> {
    type Output = Result<Summed, TrainError>;

    fn visit<const N: usize>(self, algorithm: &impl Elementwise<N>) -> Self::Output {
        let Self { inputs, rule, sizes, outputs, model } = self;
        let layout = &model.layout;
        let mut step = Step::begin(algorithm, inputs.model, inputs.state, &model, outputs)?;
        let shards: Vec<u32> = inputs.contributions.iter().map(|(shard, _)| *shard).collect();
        let mut opened = Opened::new(layout, shards.len(), rule.combine.clip_norm);
        let (mut norm, mut weight_sum, mut buffer) = (RunningNorm::default(), 0.0, Vec::new());
        for window in Windows::new(layout, window_elements(rule.combine.strategy, shards.len(), sizes)) {
            let elements = window.layout.elements();
            let mut combiner = Combiner::with_range(0..elements, &window.layout, &shards, rule.combine.strategy)?;
            for (number, (shard, weight)) in inputs.contributions.iter().enumerate() {
                let source = (inputs.open)(number)?;
                let refused = |cause| TrainError::Contribution { shard: *shard, cause };
                let (placed, factor) = opened.placed(number, source.as_ref()).map_err(refused)?;
                let part = placed.window(&window, source.as_ref(), &mut buffer)?;
                check_window_finite(&window, &part).map_err(refused)?;
                combiner.add(*shard, &part.scaled(factor), *weight)?;
            }
            let combined = combiner.finish()?;
            weight_sum = combined.weight_sum;
            add_norm(&mut norm, &window, &combined);
            step.window(&window, &combined)?;
        }
        Ok(Summed { weight_sum, gradient_norm: norm.norm() })
    }
}

fn window_elements(strategy: Strategy, shards: usize, sizes: WindowSizes) -> usize {
    let held = sizes.sum_bytes / size_of::<f64>();
    match strategy {
        Strategy::Mean => held,
        Strategy::Order(_) => held.min(sizes.sorted_bytes / (shards.max(1) * size_of::<f64>())),
    }
}

fn add_norm(norm: &mut RunningNorm, window: &Window, combined: &Mean) {
    fn add<E: Element>(norm: &mut RunningNorm, tensor: usize, data: &[u8]) {
        let mut block = [E::ZERO; crate::limits::BLOCK_ELEMENTS];
        for bytes in data.chunks(block.len() * E::BYTES) {
            let block = &mut block[..bytes.len() / E::BYTES];
            E::read(bytes, block);
            norm.add(tensor, block);
        }
    }
    for (piece, (spec, data)) in window.pieces.iter().zip(window.layout.split(&combined.data)) {
        match spec.dtype {
            Dtype::F32 => add::<f32>(norm, piece.tensor, data),
            Dtype::F64 => add::<f64>(norm, piece.tensor, data),
        }
    }
}

/// What is known of the contributions' files. Bounded: of equal headers one is kept, and of few others.
struct Opened<'a> {
    model: &'a Layout,
    clip_norm: Option<f64>,
    /// (header, bytes of its file, what it says).
    kept: Vec<(Vec<u8>, u64, PlacedContribution)>,
    /// For each contribution that was opened: its clipping factor and, where its header is kept, what that says.
    seen: Vec<Option<(Option<f64>, Option<PlacedContribution>)>>,
}

impl<'a> Opened<'a> {
    fn new(model: &'a Layout, contributions: usize, clip_norm: Option<f64>) -> Self {
        Self { model, clip_norm, kept: Vec::new(), seen: vec![None; contributions] }
    }

    /// Where its values are, and what they are multiplied with.
    fn placed(&mut self, number: usize, source: &dyn Source) -> Result<(PlacedContribution, Option<f64>), GuardError> {
        if let Some((factor, Some(placed))) = &self.seen[number] {
            return Ok((placed.clone(), *factor));
        }
        check_size(source, FRAME_BYTES_MAX)?;
        let header = read_header(source)?;
        let bytes = source.total_bytes();
        let like = self.kept.iter().find(|(other, length, _)| *length == bytes && *other == header);
        let (placed, is_kept) = match like {
            Some((_, _, other)) => (PlacedContribution::like(self.model, other, source)?, true),
            None => {
                let placed = PlacedContribution::of_header(self.model, &header, source)?;
                let room = self.kept.len() < HEADERS_KEPT_MAX;
                if room {
                    self.kept.push((header, bytes, placed.clone()));
                }
                (placed, room)
            }
        };
        let factor = match (&self.seen[number], self.clip_norm) {
            (Some((factor, _)), _) => *factor,
            (None, Some(norm_max)) => clipping_factor(placed.l2_norm(self.model, source)?, norm_max),
            (None, None) => None,
        };
        self.seen[number] = Some((factor, is_kept.then(|| placed.clone())));
        Ok((placed, factor))
    }
}

/// The optimiser's step, window by window.
struct Step<'m, 'a, 'o, A, const N: usize> {
    algorithm: &'m A,
    number: u64,
    model: (&'a dyn Source, PlacedContribution),
    /// With the places of each tensor's slots.
    state: Option<(&'a dyn Source, Vec<[u64; N]>)>,
    outputs: Outputs<'o>,
    /// Where each tensor's data begins in the next model.
    model_starts: Vec<u64>,
    /// And its slots' in the next state.
    slot_starts: Vec<[u64; N]>,
    before: Vec<u8>,
    slots_before: Vec<u8>,
    after: Vec<u8>,
    slots_after: [Vec<u8>; N],
}

impl<'m, 'a, 'o, A: Elementwise<N>, const N: usize> Step<'m, 'a, 'o, A, N> {
    /// Checks the state, writes both headers and the number of the step.
    fn begin(
        algorithm: &'m A,
        model_source: &'a dyn Source,
        state_source: Option<&'a dyn Source>,
        model: &PlacedFrame,
        outputs: Outputs<'o>,
    ) -> Result<Self, TrainError> {
        let layout = state_layout(algorithm, &model.layout).map_err(OptimizerError::Frame)?;
        let (mut number, mut state) = (1, None);
        if let Some(source) = state_source {
            let found = PlacedFrame::read(source).map_err(TrainError::State)?;
            if found.layout != layout {
                return Err(OptimizerError::State.into());
            }
            if algorithm.counts_steps() {
                let mut data = [0; size_of::<f64>()];
                source.read_at(start_of(&found.layout, &found.starts, STEP_NAME), &mut data)?;
                number = 1 + step_number(&data)?;
            }
            state = Some((source, slot_starts(algorithm, &model.layout, &found.layout, &found.starts)));
        }
        let (model_header, state_header) =
            (model.layout.header().map_err(OptimizerError::Frame)?, layout.header().map_err(OptimizerError::Frame)?);
        let (model_starts, state_starts) =
            (starts(&model.layout, model_header.len()), starts(&layout, state_header.len()));
        outputs.model.begin((model_header.len() + model.layout.data_bytes()) as u64)?;
        outputs.model.write_at(0, &model_header)?;
        outputs.state.begin((state_header.len() + layout.data_bytes()) as u64)?;
        outputs.state.write_at(0, &state_header)?;
        if algorithm.counts_steps() {
            outputs.state.write_at(start_of(&layout, &state_starts, STEP_NAME), &(number as f64).to_le_bytes())?;
        }
        let slot_starts = slot_starts(algorithm, &model.layout, &layout, &state_starts);
        Ok(Self {
            algorithm,
            number,
            model: (model_source, PlacedContribution::of_frame(model)),
            state,
            outputs,
            model_starts,
            slot_starts,
            before: Vec::new(),
            slots_before: Vec::new(),
            after: Vec::new(),
            slots_after: std::array::from_fn(|_| Vec::new()),
        })
    }

    /// Reads, steps and writes the elements of a window.
    fn window(&mut self, window: &Window, combined: &Mean) -> Result<(), TrainError> {
        let (source, placed) = &self.model;
        let checked = placed.window(window, *source, &mut self.before)?;
        check_window_finite(window, &checked).map_err(TrainError::Model)?;
        let mut slots_in: Vec<std::ops::Range<usize>> = Vec::new();
        if let Some((source, starts)) = &self.state {
            let wanted = (0..N).flat_map(|slot| places(window, move |tensor| starts[tensor][slot]));
            let wanted: Vec<_> = wanted.map(|(start, bytes)| start..start + bytes as u64).collect();
            slots_in = read_ranges(*source, &wanted, &mut self.slots_before)?;
        }
        self.after.resize(window.layout.data_bytes(), 0);
        self.slots_after.iter_mut().for_each(|slot| slot.resize(window.layout.data_bytes(), 0));
        let mut at = 0;
        for (index, (spec, gradient)) in window.layout.split(&combined.data).enumerate() {
            let data = checked.raw(index);
            let count = window.pieces.len();
            let slots = std::array::from_fn(|slot| {
                slots_in.get(slot * count + index).map(|place| &self.slots_before[place.clone()])
            });
            let place = at..at + spec.bytes();
            at = place.end;
            let out = &mut self.after[place.clone()];
            let slots_out = self.slots_after.each_mut().map(|slot| &mut slot[place.clone()]);
            match spec.dtype {
                Dtype::F32 => step_tensor::<f32, N>(self.algorithm, self.number, data, gradient, slots, out, slots_out),
                Dtype::F64 => step_tensor::<f64, N>(self.algorithm, self.number, data, gradient, slots, out, slots_out),
            }
        }
        check_next("model", "", window, &self.after)?;
        for (slot, data) in self.algorithm.slots().iter().zip(&self.slots_after) {
            check_next("state", slot.prefix, window, data)?;
        }
        write_ranges(&mut *self.outputs.model, places(window, |tensor| self.model_starts[tensor]), &self.after)?;
        for (slot, data) in self.slots_after.iter().enumerate() {
            write_ranges(&mut *self.outputs.state, places(window, |tensor| self.slot_starts[tensor][slot]), data)?;
        }
        Ok(())
    }
}

/// Where the window's pieces stand in a file, (place, bytes) each, by where each tensor's data begins in it.
fn places<'a>(window: &'a Window, start_of: impl Fn(usize) -> u64 + 'a) -> impl Iterator<Item = (u64, usize)> + 'a {
    window.pieces.iter().zip(window.layout.tensors()).map(move |(piece, spec)| {
        let before = piece.elements.start * spec.dtype.bytes();
        (start_of(piece.tensor) + before as u64, spec.bytes())
    })
}

/// The results of a window are finite. `prefix` stands before the tensors' names.
fn check_next(what: &'static str, prefix: &str, window: &Window, data: &[u8]) -> Result<(), TrainError> {
    let values = window.layout.split(data).map(|(spec, data)| match spec.dtype {
        Dtype::F32 => Values::F32(data),
        Dtype::F64 => Values::F64(data),
    });
    let next = Contribution::of_window(window.layout.clone(), values.collect());
    check_window_finite(window, &next).map_err(|cause| TrainError::NotFinite {
        what,
        cause: match cause {
            GuardError::NotFinite { tensor, element, value } => {
                GuardError::NotFinite { tensor: format!("{prefix}{tensor}"), element, value }
            }
            other => other,
        },
    })
}

/// Where each tensor's data begins in a canonical file.
fn starts(layout: &Layout, header_bytes: usize) -> Vec<u64> {
    let mut at = header_bytes as u64;
    let begin = |spec: &TensorSpec| {
        let start = at;
        at += spec.bytes() as u64;
        start
    };
    layout.tensors().iter().map(begin).collect()
}

/// Of a tensor that the layout has.
fn start_of(layout: &Layout, starts: &[u64], name: &str) -> u64 {
    let index = layout.tensors().iter().position(|spec| spec.name == name);
    starts[index.expect("the algorithm's layout has it")]
}

/// For each tensor of the model, where its slots' data begins in a state of the algorithm's layout.
fn slot_starts<const N: usize>(
    algorithm: &impl Elementwise<N>,
    model: &Layout,
    state: &Layout,
    starts: &[u64],
) -> Vec<[u64; N]> {
    let by_name: std::collections::BTreeMap<&str, u64> =
        state.tensors().iter().map(|spec| spec.name.as_str()).zip(starts.iter().copied()).collect();
    let of =
        |spec: &TensorSpec| algorithm.slots().map(|slot| by_name[format!("{}{}", slot.prefix, spec.name).as_str()]);
    model.tensors().iter().map(of).collect()
}
