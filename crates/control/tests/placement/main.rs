//! Control against the real machine, with random worlds of nodes, queues, gangs, priorities, drains and elections. What is proposed is
//! applied by manifest, which checks all invariants after each entry; a healed world must finish everything.

mod cluster;
mod rng;
mod worlds;
