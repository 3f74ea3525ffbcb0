"""SyncLimiter: its verbs, its loop, and where processes end and fork."""
