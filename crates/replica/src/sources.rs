//! What `train` reads and writes here: files on this disk, and artifacts wherever their bytes are. Nothing is in memory but what is asked for.

use std::cell::RefCell;
use std::sync::Arc;

use raftgrid_blob::{FragmentReader, FragmentStore, FragmentWriter};
use raftgrid_train::{GuardError, Sink, Source, SourceError};

use crate::artifacts::{blob_failed, Artifacts};
use crate::mending::Mending;
use crate::ports::{CallError, Download};

/// The call's own error behind one of `train`.
pub(crate) fn source_failed(error: &SourceError) -> CallError {
    error.cause::<CallError>().cloned().unwrap_or_else(|| CallError::Internal(error.to_string()))
}

/// Why bytes are refused; an error if they could not be read, since then nothing is known of them.
pub(crate) fn refused(error: &GuardError) -> Result<String, CallError> {
    match error.source_error() {
        Some(error) => Err(source_failed(error)),
        None => Ok(error.to_string()),
    }
}

fn all_of(got: Result<usize, CallError>, offset: u64, wanted: usize) -> Result<(), SourceError> {
    match got {
        Ok(got) if got == wanted => Ok(()),
        Ok(got) => {
            let end = offset + got as u64;
            Err(SourceError::new(CallError::Internal(format!(
                "the bytes end at {end} instead of {}",
                offset + wanted as u64
            ))))
        }
        Err(error) => Err(SourceError::new(error)),
    }
}

/// A finished file of this disk.
pub(crate) struct Spooled(pub FragmentReader);

impl Source for Spooled {
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let wanted = buffer.len();
        all_of(self.0.read_at(offset, buffer).map_err(blob_failed), offset, wanted)
    }
}

/// A committed artifact: read from this disk, where it is fetched to if need be. It stays readable when the cache lets it go.
pub(crate) struct Stored {
    total_bytes: u64,
    download: RefCell<Mending>,
}

impl Stored {
    /// Opens what is here, or fetches it. Blocks.
    pub(crate) fn open(artifacts: &Arc<Artifacts>, artifact_id: u64) -> Result<Self, CallError> {
        let download = Mending::new(artifacts.clone(), artifacts.committed(artifact_id)?)?;
        Ok(Self { total_bytes: download.total_bytes(), download: RefCell::new(download) })
    }
}

impl Source for Stored {
    fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let wanted = buffer.len();
        all_of(self.download.borrow_mut().read_at(offset, buffer), offset, wanted)
    }
}

/// A file on its way to become an artifact; it is made when its length is known.
pub(crate) struct Spool {
    files: FragmentStore,
    /// And its length.
    begun: Option<(FragmentWriter, u64)>,
}

impl Spool {
    pub(crate) fn new(files: FragmentStore) -> Self {
        Self { files, begun: None }
    }

    /// The finished file and its SHA-256. Error: it was never begun, it has not the length that it was begun with, or the disk's.
    pub(crate) fn finish(self) -> Result<(FragmentWriter, [u8; 32]), CallError> {
        let (mut writer, total_bytes) = self.begun.ok_or_else(never_begun)?;
        let digest = writer.finish(Some(total_bytes), None).map_err(blob_failed)?;
        Ok((writer, digest))
    }
}

fn never_begun() -> CallError {
    CallError::Internal("a result was not begun".to_owned())
}

impl Sink for Spool {
    fn begin(&mut self, total_bytes: u64) -> Result<(), SourceError> {
        let begun = self.files.create_for(total_bytes).map_err(|error| SourceError::new(blob_failed(error)))?;
        self.begun = Some((begun, total_bytes));
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), SourceError> {
        let (writer, _) = self.begun.as_mut().ok_or_else(|| SourceError::new(never_begun()))?;
        writer.write_at(offset, data).map_err(|error| SourceError::new(blob_failed(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use raftgrid_blob::FragmentStore;
    use raftgrid_proto::v1::{Combine, Optimizer};
    use raftgrid_train::{
        sum_streamed, Aggregator, Dtype, Inputs, Layout, Outputs, RoundRule, TensorSpec, WindowSizes,
    };
    use sha2::{Digest, Sha256};

    use super::*;

    fn layout() -> Layout {
        let spec =
            |name: &str, dtype, shape: &[usize]| TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() };
        let tensors = vec![
            spec("layer.weight", Dtype::F32, &[300, 401]),
            spec("layer.bias", Dtype::F32, &[300]),
            spec("scale", Dtype::F64, &[77]),
            spec("nothing", Dtype::F32, &[0]),
        ];
        Layout::new(tensors).unwrap()
    }

    fn file(layout: &Layout, salt: u64) -> Vec<u8> {
        let mut state = salt;
        let mut value = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1_u64 << 30) as f64 - 1.0
        };
        let mut data = Vec::new();
        for spec in layout.tensors() {
            for _ in 0..spec.elements() {
                match spec.dtype {
                    Dtype::F32 => data.extend((value() as f32).to_le_bytes()),
                    Dtype::F64 => data.extend(value().to_le_bytes()),
                }
            }
        }
        layout.write_concatenated(&data).unwrap()
    }

    fn spooled(store: &FragmentStore, bytes: &[u8]) -> Spooled {
        let mut writer = store.create().unwrap();
        bytes.chunks(100_001).for_each(|part| writer.write(part).unwrap());
        writer.finish(Some(bytes.len() as u64), None).unwrap();
        Spooled(writer.reader().unwrap())
    }

    /// Adam's state has two slots, which are written side by side; the second round reads what the first one wrote.
    #[test]
    fn a_sum_over_files_in_small_windows_is_the_sum_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = FragmentStore::open(folder.path()).unwrap();
        let layout = layout();
        let mut optimizer = Optimizer::new();
        optimizer.set_algorithm("adam".to_owned());
        optimizer.set_learning_rate(0.01);
        optimizer.set_beta1(0.9);
        optimizer.set_beta2(0.99);
        optimizer.set_epsilon(1e-8);
        for (strategy, clip_norm) in [("mean", 0.0), ("mean", 2.0), ("median", 0.0)] {
            let mut combine = Combine::new();
            combine.set_strategy(strategy.to_owned());
            combine.set_clip_norm(clip_norm);
            let (mut model, mut state) = (file(&layout, 1), None::<Vec<u8>>);
            for round in 0..2 {
                let rule = RoundRule::from_proto(&optimizer, &combine, round).unwrap();
                let list: Vec<(u32, f64)> = (0..3).map(|shard| (shard, f64::from(shard) + 0.5)).collect();
                let files: Vec<Vec<u8>> = (0..3).map(|shard| file(&layout, 10 * round + shard + 2)).collect();
                let mut in_memory = Aggregator::with_rule(&model, state.as_deref(), &[0, 1, 2], rule).unwrap();
                list.iter()
                    .zip(&files)
                    .for_each(|((shard, weight), file)| in_memory.add(*shard, *weight, file).unwrap());
                let expected = in_memory.finish().unwrap();
                let sources: Vec<Rc<Spooled>> = files.iter().map(|file| Rc::new(spooled(&store, file))).collect();
                let (model_file, state_file) =
                    (spooled(&store, &model), state.as_deref().map(|it| spooled(&store, it)));
                let (mut next_model, mut next_state) = (Spool::new(store.clone()), Spool::new(store.clone()));
                let inputs = Inputs {
                    model: &model_file,
                    state: state_file.as_ref().map(|file| file as &dyn Source),
                    contributions: &list,
                    open: &mut |number| Ok(sources[number].clone()),
                };
                let sizes = WindowSizes { sum_bytes: 1_000 * 8, sorted_bytes: 3_333 * 8 };
                let outputs = Outputs { model: &mut next_model, state: &mut next_state };
                sum_streamed(inputs, rule, sizes, outputs).unwrap();
                for (spool, bytes) in [(next_model, &expected.model), (next_state, &expected.state)] {
                    let (writer, digest) = spool.finish().unwrap();
                    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(bytes)), "{strategy}, round {round}");
                    assert_eq!(writer.reader().unwrap().read_all().unwrap(), *bytes);
                }
                (model, state) = (expected.model, Some(expected.state));
            }
        }
    }

    #[test]
    fn a_file_that_ends_too_early_or_rots_is_an_error_of_the_call_and_no_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let store = FragmentStore::open(folder.path()).unwrap();
        let layout = layout();
        let bytes = file(&layout, 5);
        let good = spooled(&store, &bytes);
        assert!(good.read_at(bytes.len() as u64 - 1, &mut [0; 2]).is_err());
        let mut writer = store.create().unwrap();
        writer.write(&bytes).unwrap();
        writer.finish(None, None).unwrap();
        let rotten = Spooled(writer.reader().unwrap());
        let path = std::fs::read_dir(folder.path().join("incoming")).unwrap().next().unwrap().unwrap().path();
        let mut changed = std::fs::read(&path).unwrap();
        changed[300_000] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let error = raftgrid_train::check_model_source(&rotten, &Default::default()).unwrap_err();
        assert!(matches!(refused(&error), Err(CallError::Internal(_))), "{error}");
        let other = Layout::new(vec![TensorSpec { name: "w".to_owned(), dtype: Dtype::F32, shape: vec![1] }]).unwrap();
        let error = raftgrid_train::check_contribution_source(&other, &good, &Default::default(), true).unwrap_err();
        assert!(refused(&error).unwrap().contains("`w` is missing"), "{error}");
    }
}
