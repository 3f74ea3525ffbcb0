"""Bots as they are installed, against an app limited by this package."""
