"""The service in memory, a clock to move, and the pytest plugin, for users' tests."""
