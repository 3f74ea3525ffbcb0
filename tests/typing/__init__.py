"""The types that a user sees: code that calls the package rightly has no finding, a mistake has one."""
