"""Every type and its edge values through the whole path, compared with PostgreSQL's own text of them."""
