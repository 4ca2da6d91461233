"""The order of service: which waiting tickets are served next. Pure."""
