"""Clients of Discord's API as they are installed, each in a process of its own."""
