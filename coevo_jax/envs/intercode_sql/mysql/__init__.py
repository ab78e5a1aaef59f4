"""MySQL for the agent: a dump converted to SQLite, MySQL's dialect spoken over it, or a real server."""
