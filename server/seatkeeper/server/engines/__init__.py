"""Published engines."""
