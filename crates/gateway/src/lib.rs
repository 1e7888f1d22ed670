//! The HTTP port of a replica: `/metrics`, `/healthz`, `/readyz`; later REST and the dashboard.
//!
//! Owned here: the listener, its bounds (connections, heads, times) and the routes. Called by `controld`, which brings a [`Site`]. Never here:
//! what is counted and what readiness means; blocking work on the thread of the listener (it goes to a few threads of its own).

pub mod limits;
mod metrics;
mod serve;
mod site;

pub use serve::{Gateway, GatewayError};
pub use site::Site;
