//! Executor of tasks: a pure state machine and a process host.
