"""A dashboard on which one can watch one's own rate limits: uvicorn example_app.main:app."""
