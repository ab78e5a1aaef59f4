"""What the exit codes of all commands mean."""

USER_ERROR = 2  # what was given cannot be used
FAILURE = 1  # it could, but the work broke off; the run can be resumed
SIGNALLED = 128  # plus the signal's number, as shells have it: it ended because it was asked to
