"""Other executors of a policy."""
