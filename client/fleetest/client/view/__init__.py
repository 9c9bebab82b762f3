"""What people see of a run: the fold of its log, and the ways to show it."""
