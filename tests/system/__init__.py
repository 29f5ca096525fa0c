"""Tests that take minutes, each with a make target."""
