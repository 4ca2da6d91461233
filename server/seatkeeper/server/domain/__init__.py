"""What the service is about, as plain values. Pure: depends on nothing of ours."""
