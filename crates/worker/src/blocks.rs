//! C = A·B by blocks, one step in a task: `map` multiplies a pair of blocks, `reduce` adds products, `product` puts C together.
//!
//! Values: element k of A, then B, row by row, is the highest four bits of splitmix64's output k + 1 from `seed`, minus 8: whole numbers from
//! -8 to 7, so that every sum is exact in float64 whatever its order, and the checksum (SHA-256 over C row by row, float64, little-endian) is
//! the same for any blocks and any program. Files of blocks hold the same. Where a matrix is given as an artifact its values may be any, and a
//! sum's last bits then follow the order of its blocks.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::BLOCK_MAX;

const VALUE_BYTES: usize = 8;
/// Distance of two states of splitmix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a task of the graph does.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Block (i, k) of A times block (k, j) of B.
    Map,
    /// The sum of the products of block (i, j) of C.
    Reduce,
    /// C out of its blocks.
    Product,
}

/// `task_data` of a step.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct BlockPlan {
    /// Which one.
    pub step: Step,
    /// Whose: its steps' artifacts are called `<job>/<task>`.
    pub job: String,
    /// Of A and C.
    pub rows: usize,
    /// Columns of A, rows of B.
    pub inner: usize,
    /// Of B and C.
    pub columns: usize,
    /// Rows and columns of a block; those at the edge may be smaller.
    pub block: usize,
    /// Of the values.
    #[serde(default)]
    pub seed: u64,
    /// Artifact with A; "": from the seed.
    #[serde(default)]
    pub left: String,
    /// Artifact with B; "": from the seed.
    #[serde(default)]
    pub right: String,
    /// Row of blocks.
    #[serde(default)]
    pub i: usize,
    /// Column of blocks.
    #[serde(default)]
    pub j: usize,
    /// Along the inner side.
    #[serde(default)]
    pub k: usize,
}

/// What a step tells. The last one's is the job's result.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct BlockResult {
    /// Of what it made.
    pub rows: usize,
    /// Of what it made.
    pub columns: usize,
    /// SHA-256 of what it made, as hexadecimal digits.
    pub checksum: String,
    /// Its sum.
    pub sum: f64,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// A file of a block.
    #[error("failed to read or write a block: {0}")]
    Io(#[from] std::io::Error),
    /// A file that is not the block or matrix that was asked for.
    #[error("failed to multiply: {0} has {1} bytes, not the {2} of its rows and columns")]
    Size(String, u64, u64),
}

/// Name of the file of the matrix A in a step's folder.
pub const LEFT_FILE: &str = "left";
/// The same of B.
pub const RIGHT_FILE: &str = "right";
/// What a step leaves.
pub const OUTPUT_FILE: &str = "out";

impl BlockPlan {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.block == 0 || self.block > BLOCK_MAX {
            return Err(format!("block is {}, it must be 1 to {BLOCK_MAX}", self.block));
        }
        let count = |side: usize| side.div_ceil(self.block);
        let inside = self.i < count(self.rows) && self.j < count(self.columns) && self.k < count(self.inner);
        let sane = [self.rows, self.inner, self.columns].iter().all(|side| (1..=1 << 20).contains(side));
        if sane && inside {
            Ok(())
        } else {
            Err("rows, inner and columns must be 1 to 1048576, and i, j and k name a block".to_owned())
        }
    }

    /// The artifacts that the step works on: (file name, artifact).
    pub fn inputs(&self) -> Vec<(String, String)> {
        let file = |name: String| (name.clone(), format!("{}/{name}", self.job));
        let count = |side: usize| side.div_ceil(self.block);
        match self.step {
            Step::Map => {
                let given = [(LEFT_FILE, &self.left), (RIGHT_FILE, &self.right)];
                let given = given.into_iter().filter(|(_, artifact)| !artifact.is_empty());
                given.map(|(name, artifact)| (name.to_owned(), artifact.clone())).collect()
            }
            Step::Reduce => (0..count(self.inner)).map(|k| file(format!("map-{}-{}-{k}", self.i, self.j))).collect(),
            Step::Product => (0..count(self.rows))
                .flat_map(|i| (0..count(self.columns)).map(move |j| (i, j)))
                .map(|(i, j)| file(format!("reduce-{i}-{j}")))
                .collect(),
        }
    }

    /// First index and length of block `at` along a side.
    fn span(&self, side: usize, at: usize) -> (usize, usize) {
        let begin = at * self.block;
        (begin, self.block.min(side - begin))
    }

    /// Does the step: reads its inputs from `folder` and leaves `OUTPUT_FILE` there.
    pub fn run(&self, folder: &Path) -> Result<BlockResult, BlockError> {
        match self.step {
            Step::Map => {
                let ((row, rows), (column, columns)) = (self.span(self.rows, self.i), self.span(self.columns, self.j));
                let (from, inner) = self.span(self.inner, self.k);
                let left = self.part(folder, LEFT_FILE, &self.left, 0, self.inner, (row, rows), (from, inner))?;
                let behind = self.rows * self.inner;
                let right =
                    self.part(folder, RIGHT_FILE, &self.right, behind, self.columns, (from, inner), (column, columns))?;
                let mut c = vec![0.0; rows * columns];
                crate::matmul::multiply(&left, &right, inner, columns, &mut c);
                write_block(&folder.join(OUTPUT_FILE), &c, rows, columns)
            }
            Step::Reduce => {
                let ((_, rows), (_, columns)) = (self.span(self.rows, self.i), self.span(self.columns, self.j));
                let mut c = vec![0.0; rows * columns];
                for (name, _) in self.inputs() {
                    let product = read_values(&folder.join(&name), &name, rows * columns)?;
                    c.iter_mut().zip(product).for_each(|(sum, value)| *sum += value);
                }
                write_block(&folder.join(OUTPUT_FILE), &c, rows, columns)
            }
            Step::Product => self.assemble(folder),
        }
    }

    /// Rows and columns of a matrix: out of its file, or from the seed. `behind`: values of the seed before the matrix.
    #[allow(clippy::too_many_arguments, reason = "two sides, each a place and a length")]
    fn part(
        &self,
        folder: &Path,
        file: &str,
        artifact: &str,
        behind: usize,
        width: usize,
        (row, rows): (usize, usize),
        (column, columns): (usize, usize),
    ) -> Result<Vec<f64>, BlockError> {
        let mut values = Vec::with_capacity(rows * columns);
        if artifact.is_empty() {
            for i in row..row + rows {
                let begin = behind + i * width + column;
                values.extend((begin..begin + columns).map(|at| element(self.seed, at as u64)));
            }
            return Ok(values);
        }
        let height = if file == LEFT_FILE { self.rows } else { self.inner };
        let mut source = File::open(folder.join(file))?;
        check_size(&source, file, height * width)?;
        let mut line = vec![0; columns * VALUE_BYTES];
        for i in row..row + rows {
            source.seek(SeekFrom::Start(((i * width + column) * VALUE_BYTES) as u64))?;
            source.read_exact(&mut line)?;
            values.extend(decode(&line));
        }
        Ok(values)
    }

    /// C row by row: one line of each block of a row of blocks after another.
    fn assemble(&self, folder: &Path) -> Result<BlockResult, BlockError> {
        let mut out = BufWriter::new(File::create(folder.join(OUTPUT_FILE))?);
        let (mut hash, mut sum) = (Sha256::new(), 0.0);
        for i in 0..self.rows.div_ceil(self.block) {
            let (_, rows) = self.span(self.rows, i);
            let mut sources = Vec::new();
            for j in 0..self.columns.div_ceil(self.block) {
                let (name, (_, columns)) = (format!("reduce-{i}-{j}"), self.span(self.columns, j));
                let file = File::open(folder.join(&name))?;
                check_size(&file, &name, rows * columns)?;
                sources.push((BufReader::new(file), vec![0; columns * VALUE_BYTES]));
            }
            for _ in 0..rows {
                for (source, line) in &mut sources {
                    source.read_exact(line)?;
                    hash.update(&*line);
                    sum = decode(line).fold(sum, |sum: f64, value| sum + value);
                    out.write_all(line)?;
                }
            }
        }
        out.flush()?;
        Ok(BlockResult { rows: self.rows, columns: self.columns, checksum: hex(&hash.finalize()), sum })
    }
}

/// Value `at` of the seed's sequence.
pub fn element(seed: u64, at: u64) -> f64 {
    let state = seed.wrapping_add(GAMMA.wrapping_mul(at));
    (crate::matmul::SplitMix64::new(state).next_u64() >> 60) as f64 - 8.0
}

fn decode(line: &[u8]) -> impl Iterator<Item = f64> + '_ {
    line.chunks_exact(VALUE_BYTES).map(|bytes| f64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes")))
}

fn check_size(file: &File, name: &str, values: usize) -> Result<(), BlockError> {
    let (has, wanted) = (file.metadata()?.len(), (values * VALUE_BYTES) as u64);
    if has == wanted {
        Ok(())
    } else {
        Err(BlockError::Size(name.to_owned(), has, wanted))
    }
}

fn read_values(path: &Path, name: &str, values: usize) -> Result<Vec<f64>, BlockError> {
    let mut file = File::open(path)?;
    check_size(&file, name, values)?;
    let mut bytes = Vec::with_capacity(values * VALUE_BYTES);
    file.read_to_end(&mut bytes)?;
    Ok(decode(&bytes).collect())
}

fn write_block(path: &Path, values: &[f64], rows: usize, columns: usize) -> Result<BlockResult, BlockError> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(path, &bytes)?;
    let sum = values.iter().fold(0.0, |sum, value| sum + value);
    Ok(BlockResult { rows, columns, checksum: hex(&Sha256::digest(&bytes)), sum })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(step: Step, block: usize) -> BlockPlan {
        let (left, right) = (String::new(), String::new());
        BlockPlan {
            step,
            job: "m".into(),
            rows: 7,
            inner: 5,
            columns: 9,
            block,
            seed: 3,
            left,
            right,
            i: 0,
            j: 0,
            k: 0,
        }
    }

    /// All steps in one folder, each with the inputs under their names.
    fn product(change: impl Fn(&mut BlockPlan), block: usize, prepare: impl Fn(&Path)) -> BlockResult {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let run = |step, i, j, k, name: &str| {
            let mut plan = BlockPlan { i, j, k, ..plan(step, block) };
            change(&mut plan);
            plan.check().expect("a good plan");
            let result = plan.run(folder.path()).expect("it runs");
            std::fs::rename(folder.path().join(OUTPUT_FILE), folder.path().join(name)).expect("it left its block");
            result
        };
        let count = |side: usize| side.div_ceil(block);
        for i in 0..count(7) {
            for j in 0..count(9) {
                for k in 0..count(5) {
                    run(Step::Map, i, j, k, &format!("map-{i}-{j}-{k}"));
                }
                run(Step::Reduce, i, j, 0, &format!("reduce-{i}-{j}"));
            }
        }
        run(Step::Product, 0, 0, 0, "product")
    }

    fn naive() -> String {
        let a: Vec<f64> = (0..35).map(|at| element(3, at)).collect();
        let b: Vec<f64> = (35..80).map(|at| element(3, at)).collect();
        let mut hash = Sha256::new();
        for i in 0..7 {
            for j in 0..9 {
                hash.update((0..5).fold(0.0, |sum, k| sum + a[i * 5 + k] * b[k * 9 + j]).to_le_bytes());
            }
        }
        hex(&hash.finalize())
    }

    #[test]
    fn the_checksum_is_the_same_for_any_blocks() {
        for block in [1, 2, 3, 4, 9, 100] {
            assert_eq!(product(|_| (), block, |_| ()).checksum, naive(), "blocks of {block}");
        }
    }

    #[test]
    fn matrices_that_are_given_as_files_are_multiplied_as_they_stand() {
        let bytes =
            |range: std::ops::Range<u64>| -> Vec<u8> { range.flat_map(|at| element(3, at).to_le_bytes()).collect() };
        let prepare = |folder: &Path| {
            std::fs::write(folder.join(LEFT_FILE), bytes(0..35)).expect("written");
            std::fs::write(folder.join(RIGHT_FILE), bytes(35..80)).expect("written");
        };
        let given = |plan: &mut BlockPlan| {
            plan.seed = 999;
            (plan.left, plan.right) = ("a".into(), "b".into());
        };
        assert_eq!(product(given, 3, prepare).checksum, naive());
    }

    #[test]
    fn a_block_of_another_size_is_not_added() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("map-0-0-0"), [0; 16]).expect("written");
        let error = plan(Step::Reduce, 9).run(folder.path()).expect_err("too short").to_string();
        assert!(error.contains("map-0-0-0 has 16 bytes, not the 504"), "{error}");
    }

    #[test]
    fn each_step_names_what_it_needs() {
        assert!(plan(Step::Map, 3).inputs().is_empty());
        let reduce = plan(Step::Reduce, 3).inputs();
        assert_eq!(reduce[1], ("map-0-0-1".to_owned(), "m/map-0-0-1".to_owned()));
        assert_eq!((reduce.len(), plan(Step::Product, 3).inputs().len()), (2, 9));
    }
}
