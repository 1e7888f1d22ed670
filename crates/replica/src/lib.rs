//! One control-plane node assembled, without transport.

pub mod ports;
