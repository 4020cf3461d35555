"""When a request may go: one back-off for everybody."""
