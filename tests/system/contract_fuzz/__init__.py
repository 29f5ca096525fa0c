"""Thousands of requests, right and wrong ones, whose answers have to be what the contract says."""
