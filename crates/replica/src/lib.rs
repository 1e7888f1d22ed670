//! One control-plane node assembled, without transport.
