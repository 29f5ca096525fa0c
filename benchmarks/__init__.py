"""Benchmarks behind MusicLab's performance figures."""
