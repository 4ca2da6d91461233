"""The node: stateless, keeps seats in a store, serves any client."""
