//! The checkers against each other, against every order tried one by one, and against histories that are known to be wrong.

mod agreement;
mod generator;
mod known;
mod lives;
