"""The version, in the one place that everything can import."""

VERSION = "0.6.0"
