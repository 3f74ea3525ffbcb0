"""Tests of the shared store, against real servers."""
