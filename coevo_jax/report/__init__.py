"""Reports of stored runs: on the terminal and as HTML pages."""
