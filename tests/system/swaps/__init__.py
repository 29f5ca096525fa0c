"""Swaps checkpoints under load, and checks that no job is lost."""
