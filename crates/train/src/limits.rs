//! Named limits of this crate.

/// Largest model or contribution, in bytes of its tensors.
pub const TENSOR_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Largest file of a model or a contribution, in bytes: with the longest header.
pub const FRAME_BYTES_MAX: u64 = TENSOR_BYTES_MAX + HEADER_BYTES_MAX + 8;
/// Tensors that an optimiser's state has for each of the model, at most.
pub const STATE_SLOTS_MAX: u64 = 2;
/// Largest file that is a frame at all, in bytes: the state of the largest model.
pub const ANY_FILE_BYTES_MAX: u64 = STATE_SLOTS_MAX * FRAME_BYTES_MAX + HEADER_BYTES_MAX;
/// Largest header of a frame, in bytes: 65,536 tensors with names of 100 bytes fit.
pub const HEADER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most tensors in a frame.
pub const TENSORS_MAX: usize = 65_536;
/// Longest name of a tensor, in bytes of UTF-8. The state's prefix comes on top.
pub const NAME_BYTES_MAX: usize = 1024;
/// Most dimensions of a tensor: NumPy 2's own limit.
pub const DIMENSIONS_MAX: usize = 64;
/// Largest Euclidean norm of a contribution unless the job says another: 2^64. The squares of larger values, which Adam keeps, do not fit into f32,
/// and a gradient of that size is of a model that has diverged long ago.
pub const NORM_LIMIT_DEFAULT: f64 = 18_446_744_073_709_551_616.0;
/// Elements in one block of the fixed summation tree.
pub const NORM_BLOCK_ELEMENTS: usize = 4096;
/// Lanes of a block of the fixed summation tree; a power of two.
pub const NORM_LANES: usize = 16;
/// Bytes of a file that are checked at a time, for elements of eight bytes; half as many for four.
pub const CHECK_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Headers of contributions that are kept parsed during a sum: those of one script are equal, but for its encoding.
pub const HEADERS_KEPT_MAX: usize = 4;
/// Elements that are turned from bytes into numbers at a time: a few such blocks stay in the first cache.
pub const BLOCK_ELEMENTS: usize = 512;
/// Elements that are sorted at a time: with 64 shards of f32 a block is 32 KiB.
pub const SORT_BLOCK_ELEMENTS: usize = 128;
/// Most metrics that are averaged per round.
pub const METRICS_MAX: usize = 256;
/// Longest JSON of one contribution's metrics, in bytes; longer ones are left out of the mean.
pub const METRICS_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(NORM_LANES.is_power_of_two());
const _: () = assert!(NORM_BLOCK_ELEMENTS.is_multiple_of(NORM_LANES));
const _: () = assert!(HEADER_BYTES_MAX < TENSOR_BYTES_MAX);
const _: () = assert!(CHECK_WINDOW_BYTES >= BLOCK_ELEMENTS * 8);
// Blocks of elements never straddle a block of the tree, and begin at lane 0.
const _: () = assert!(NORM_BLOCK_ELEMENTS.is_multiple_of(BLOCK_ELEMENTS) && BLOCK_ELEMENTS.is_multiple_of(NORM_LANES));
