"""The version of this package, told to workerd in Hello."""

__version__ = "0.1.0"
