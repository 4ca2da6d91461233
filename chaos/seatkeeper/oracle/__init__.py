"""History and checker: whether the service kept its promises."""
