"""Fault injection: no accepted job is lost when MusicLab is killed at random under load."""
