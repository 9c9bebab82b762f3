"""Where a run's log, its projections and documents are kept: the ports, and an adapter for each engine."""
