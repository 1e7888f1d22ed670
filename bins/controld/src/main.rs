//! A control-plane replica.
fn main() {}
