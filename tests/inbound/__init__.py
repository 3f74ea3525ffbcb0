"""The way in: keys, headers, ledger, gate, answer, WebSockets, warnings and the middleware."""
