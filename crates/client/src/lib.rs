//! Endpoints, retries, request ids: how a program talks to the control plane.
