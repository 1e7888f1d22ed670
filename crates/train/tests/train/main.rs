//! Tests of `raftgrid-train` over its public functions: one binary.

mod common;
mod golden;
mod guards;
mod properties;
mod strategies;
mod strategy_properties;
mod streams;
