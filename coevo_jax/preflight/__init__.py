"""The preflight: compiles a run's programs and says what memory they need."""
