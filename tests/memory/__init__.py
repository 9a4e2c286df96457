"""How much memory a process takes above idle, while it reads results and while it sends them."""
