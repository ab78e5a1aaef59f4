"""Any object of the user's with `reset` and `step` and text, in Gymnasium's shape."""
