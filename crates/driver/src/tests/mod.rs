//! Tests of the core, alone and in a simulated group, and of the threads.

mod alone;
mod hostile;
mod hostile_group;
mod lease;
mod membership;
mod pack;
mod random;
mod sim;
mod threads;
mod traps;
