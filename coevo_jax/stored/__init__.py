"""What is done with the agents of a stored run, without touching it."""
