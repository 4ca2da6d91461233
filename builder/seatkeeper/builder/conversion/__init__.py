"""What is done to a model before it is compiled: one step a module, and ``conversion`` above them."""
