"""Checking whether a service kept its promises: by its own history, and by what its users observed."""
