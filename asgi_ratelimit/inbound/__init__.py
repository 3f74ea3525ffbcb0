"""The way in: who is asking (keys), whether they may (gate), how it is said (headers, response), and the ASGI door."""
