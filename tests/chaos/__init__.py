"""The chaos test: uploads go on while processes die and the network fails, and in the end every row is where it belongs."""
