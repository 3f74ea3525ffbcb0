"""The FastAPI door: which bucket a route has, who is asking, what is answered and what is documented."""
