//! Tensor frames, guards, aggregation, optimisers. Pure.
