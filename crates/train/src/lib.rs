//! What becomes of gradients: tensor frames, guards, the weighted mean in its fixed order (or trimmed mean, or median), the optimiser.
//!
//! Called by `replica` (guards, aggregation, audit) and tests. Pure: bytes in, bytes out; no file, no socket, no thread, no clock, no
//! random number, and no way to learn in which order contributions arrived. Callers own threads: a [`Combiner`] over a range of elements is
//! independent of every other. There are two ways to the same bytes: over a [`Source`] for each file, a window at a time, in bounded memory
//! ([`streamed`]; the replica's), and over bytes in memory ([`aggregate`]; what the other is held against).
//!
//! Invariant: equal inputs give equal bytes on every machine. Only `+ − × ÷ √` of IEEE 754 and conversions between widths (round to nearest,
//! ties to even) are used; each is rounded by itself (Rust never fuses a multiply with an add). Powers are products; the one transcendental
//! function is `cos`, of the `libm` crate. `ml-code/src/raftgrid` does the same arithmetic in NumPy (`_aggregate`, `_server_step`, `_combine`,
//! `_contribution`, `schedule`), and `ml-code/tests/golden` holds the two together bit for bit.

pub mod aggregate;
pub mod combine;
pub mod contribution;
mod element;
pub mod encoding;
pub mod frame;
pub mod guard;
mod header;
pub mod limits;
pub mod mean;
pub mod metrics;
pub mod norm;
pub mod optimizer;
pub mod order_statistics;
mod placed;
pub mod round;
pub mod rule;
pub mod schedule;
pub mod seed;
mod sorting_network;
pub mod source;
pub mod streamed;
mod window;

pub use aggregate::{aggregate, next_model, Aggregated, Aggregator, TrainError};
pub use combine::{Combine, CombineError, Combiner, Strategy};
pub use contribution::Contribution;
pub use frame::{Dtype, Frame, FrameError, Layout, TensorSpec};
pub use guard::{check_contribution, check_model, effective_weight, GuardError, GuardLimits};
pub use mean::{Accumulator, Mean, MeanError, Precision};
pub use metrics::mean_metrics;
pub use optimizer::{OptimizerError, ServerOptimizer, Sgd};
pub use order_statistics::{OrderStatistic, OrderStatistics};
pub use placed::{check_contribution_source, check_model_source, model_layout};
pub use round::Round;
pub use rule::RoundRule;
pub use schedule::{Schedule, ScheduleError};
pub use seed::shard_seed;
pub use source::{Sink, Source, SourceError};
pub use streamed::{sum_streamed, Inputs, Outputs, Summed, WindowSizes};

/// Names the arithmetic: mean and optimiser. Other algorithms, strategies and schedules do not enter it: their names and settings enter the
/// inputs hash by themselves. Equal to `raftgrid_manifest::ALGORITHM_ID`, which enters every inputs hash (a test holds
/// the two together); any change that can alter a bit of a result changes it.
pub const ALGORITHM_ID: &str = "raftgrid/weighted-mean-f32-shard-order/1";
