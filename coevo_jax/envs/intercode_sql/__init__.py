"""InterCode-SQL: generated tasks, or Spider's over emulated or real MySQL; InterCode's reward; experts."""
