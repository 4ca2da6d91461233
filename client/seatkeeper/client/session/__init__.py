"""A session and what it holds: leases, requests, grants."""
