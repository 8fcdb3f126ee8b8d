"""From a ranking to a policy: which tensor gets which width, and what it costs."""
