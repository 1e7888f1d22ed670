//! The plan by itself: tables of cases over nodes and tasks made by hand.

mod preemption;
mod shares;
mod units;
mod world;
