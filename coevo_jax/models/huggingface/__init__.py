"""Checkpoints in Hugging Face's form: read onto a mesh, and written."""
