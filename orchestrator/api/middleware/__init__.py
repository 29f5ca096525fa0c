"""Middleware for requests and responses."""
