"""Runs recorded and replayed."""
