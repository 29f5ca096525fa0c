"""Swaps checkpoints under load, and looks whether a job was lost."""
