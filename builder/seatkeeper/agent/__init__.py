"""The build agent: verifies a token, claims the grant, compiles, publishes under the fence."""
