"""What everything else runs on: tasks, timers, log lines and SQLite files."""
