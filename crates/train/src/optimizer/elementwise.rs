//! The frame work that all optimisers share: model, combined contribution and state as bytes in, the next model and state out.
//!
//! An algorithm says which slots its state has for each tensor (a velocity; two moments) and what becomes of one element. Elements are
//! independent of each other, tensors too.

use std::collections::BTreeMap;

use crate::element::{for_blocks, Element};
use crate::frame::{f64s, Dtype, Frame, FrameError, Layout, TensorSpec};
use crate::limits::BLOCK_ELEMENTS;

use super::{OptimizerError, Stepped, STEP_NAME};

/// One more than the largest step number: up to it f64 holds every whole number.
const STEPS_END: f64 = 9_007_199_254_740_992.0;

/// A tensor of the state for each tensor of the model, with its dtype and shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slot {
    /// Stands before the tensor's name.
    pub prefix: &'static str,
    /// Every element's value before the first step, rounded to the tensor's dtype.
    pub start: f64,
}

/// An algorithm with `N` slots.
pub(crate) trait Elementwise<const N: usize> {
    /// The slots. Prefixes differ and none is the beginning of another.
    fn slots(&self) -> [Slot; N];
    /// Whether the state has the number of steps done.
    fn counts_steps(&self) -> bool;
    /// What becomes of one element in step number `step` (1 is the first): (parameter, combined contribution, slots) to (parameter, slots).
    fn rule<E: Element>(&self, step: u64) -> impl Fn(E, E, [E; N]) -> (E, [E; N]);
}

/// The layout of the state: the slots of each tensor, and the step number where there is one.
pub(crate) fn state_layout<const N: usize>(
    algorithm: &impl Elementwise<N>,
    model: &Layout,
) -> Result<Layout, FrameError> {
    let mut tensors = Vec::with_capacity(model.tensors().len() * N + 1);
    for slot in algorithm.slots() {
        tensors.extend(model.tensors().iter().map(|spec| TensorSpec {
            name: format!("{}{}", slot.prefix, spec.name),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
        }));
    }
    if algorithm.counts_steps() {
        tensors.push(TensorSpec { name: STEP_NAME.to_owned(), dtype: Dtype::F64, shape: Vec::new() });
    }
    Layout::new(tensors)
}

/// One step over all tensors. `combined`: the model's layout, concatenated. Errors: a state of another layout, a step number that is none.
pub(crate) fn step<const N: usize>(
    algorithm: &impl Elementwise<N>,
    model: &Frame<'_>,
    combined: &[u8],
    state: Option<&Frame<'_>>,
) -> Result<Stepped, OptimizerError> {
    let state_layout = state_layout(algorithm, model.layout())?;
    if state.is_some_and(|state| *state.layout() != state_layout) {
        return Err(OptimizerError::State);
    }
    let before: BTreeMap<&str, &[u8]> =
        state.iter().flat_map(|state| state.tensors()).map(|(spec, data)| (spec.name.as_str(), data)).collect();
    let step = 1 + if algorithm.counts_steps() { steps_done(&before)? } else { 0 };
    let (mut model_file, model_start) = model.layout().blank()?;
    let (mut state_file, state_start) = state_layout.blank()?;
    {
        let mut after = places(&state_layout, &mut state_file[state_start..]);
        let mut rest = &mut model_file[model_start..];
        for ((spec, data), (_, gradient)) in model.tensors().zip(model.layout().split(combined)) {
            let (parameters, tail) = rest.split_at_mut(data.len());
            rest = tail;
            let names = algorithm.slots().map(|slot| format!("{}{}", slot.prefix, spec.name));
            let slots = names.each_ref().map(|name| before.get(name.as_str()).copied());
            let slots_out = names.map(|name| after.remove(&name).expect("the layout has every slot"));
            match spec.dtype {
                Dtype::F32 => step_tensor::<f32, N>(algorithm, step, data, gradient, slots, parameters, slots_out),
                Dtype::F64 => step_tensor::<f64, N>(algorithm, step, data, gradient, slots, parameters, slots_out),
            }
        }
        if let Some(place) = after.remove(STEP_NAME) {
            place.copy_from_slice(&(step as f64).to_le_bytes());
        }
        assert!(after.is_empty(), "every tensor of the state was written");
    }
    Ok(Stepped { model: model_file, state: state_file })
}

/// Where each tensor's data is to be written.
fn places<'a>(layout: &Layout, data: &'a mut [u8]) -> BTreeMap<String, &'a mut [u8]> {
    let mut rest = data;
    let mut places = BTreeMap::new();
    for spec in layout.tensors() {
        let (place, tail) = std::mem::take(&mut rest).split_at_mut(spec.bytes());
        rest = tail;
        places.insert(spec.name.clone(), place);
    }
    places
}

fn steps_done(before: &BTreeMap<&str, &[u8]>) -> Result<u64, OptimizerError> {
    before.get(STEP_NAME).map_or(Ok(0), |data| step_number(data))
}

/// The number of steps in the data of [`STEP_NAME`]. Error: no whole number in its range.
pub(crate) fn step_number(data: &[u8]) -> Result<u64, OptimizerError> {
    match f64s(data).next() {
        Some(steps) if steps >= 0.0 && steps.fract() == 0.0 && steps + 1.0 < STEPS_END => Ok(steps as u64),
        _ => Err(OptimizerError::State),
    }
}

/// One tensor, or a part of it, block by block.
pub(crate) fn step_tensor<E: Element, const N: usize>(
    algorithm: &impl Elementwise<N>,
    step: u64,
    data: &[u8],
    gradient: &[u8],
    slots: [Option<&[u8]>; N],
    data_out: &mut [u8],
    mut slots_out: [&mut [u8]; N],
) {
    let rule = algorithm.rule::<E>(step);
    let starts = algorithm.slots().map(|slot| E::from_f64(slot.start));
    let mut p = [E::ZERO; BLOCK_ELEMENTS];
    let mut g = [E::ZERO; BLOCK_ELEMENTS];
    let mut s = [[E::ZERO; BLOCK_ELEMENTS]; N];
    for_blocks(data.len() / E::BYTES, |elements| {
        let count = elements.len();
        let bytes = elements.start * E::BYTES..elements.end * E::BYTES;
        E::read(&data[bytes.clone()], &mut p[..count]);
        E::read(&gradient[bytes.clone()], &mut g[..count]);
        for slot in 0..N {
            match slots[slot] {
                Some(before) => E::read(&before[bytes.clone()], &mut s[slot][..count]),
                None => s[slot] = [starts[slot]; BLOCK_ELEMENTS],
            }
        }
        // The whole block, whatever `count` is: a loop of fixed length over arrays is what becomes vector code.
        for i in 0..BLOCK_ELEMENTS {
            let (parameter, after) = rule(p[i], g[i], std::array::from_fn(|slot| s[slot][i]));
            p[i] = parameter;
            for slot in 0..N {
                s[slot][i] = after[slot];
            }
        }
        E::write(&p[..count], &mut data_out[bytes.clone()]);
        for slot in 0..N {
            E::write(&s[slot][..count], &mut slots_out[slot][bytes.clone()]);
        }
    });
}
