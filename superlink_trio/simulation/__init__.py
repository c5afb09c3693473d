"""Simulated nodes: an engine that takes their tasks, and backends that run their app."""
