//! workerd's loopback service for Python.
