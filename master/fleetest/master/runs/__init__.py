"""What a run is: its events, the state they add up to, and the decisions taken on it."""
