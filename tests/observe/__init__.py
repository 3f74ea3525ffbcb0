"""Observers: what they count, log and export."""
