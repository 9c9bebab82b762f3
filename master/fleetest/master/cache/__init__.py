"""Results of earlier runs, and when they may stand for new ones."""
