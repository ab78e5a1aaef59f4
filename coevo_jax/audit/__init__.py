"""An independent witness of a run: derives again, with code of its own, what the run's files claim.

It shares file formats with the code that wrote them, the config's schema, the models' plain forward pass
and the environments' task lists; never the code that pairs, packs, learns, plays or reports
(tests/test_imports.py holds it to that). `audit.run_audit` is its door.
"""
