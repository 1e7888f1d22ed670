//! Tests of the core, alone and in a simulated group, and of the threads.

mod pack;
mod random;
mod sim;
