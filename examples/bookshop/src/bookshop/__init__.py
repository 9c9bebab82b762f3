"""A bookshop, just large enough to be worth testing."""
