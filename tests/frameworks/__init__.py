"""Other ASGI frameworks and servers: the middleware limits their apps and leaves the rest to them."""
