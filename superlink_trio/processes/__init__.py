"""Processes that a SuperLink starts: each leads a session, and ends with everybody in it."""
