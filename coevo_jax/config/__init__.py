"""Every option of a run: what there is, how it is read, and what cannot work."""
