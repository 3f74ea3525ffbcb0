"""The how-to pages: each page's own app does what the page says, to the unit."""
