"""How a client is configured: values, and the environment's variables."""
