"""The console at /ui/: pages that show jobs, queues, schedules and workers; their buttons call the public API."""
