"""`make demo`: the whole way of a result, shown."""
