"""The oracle: reads the store's change stream and what users saw, and reports violations.

It depends on the store's interface and the schema of the stored messages, and on no other code of the
service, so that a fault of the service cannot hide itself by being in both.
"""
