"""The whole public API, as users write it. Each file is type-checked, and imported, so that it runs as well."""
