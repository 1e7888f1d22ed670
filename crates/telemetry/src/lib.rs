//! Logging facade and metrics registry.
