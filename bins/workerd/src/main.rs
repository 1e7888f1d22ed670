//! A worker node.
fn main() {}
