"""ScienceWorld: interactive science tasks in the real simulator, from the package index."""
