"""Running scorers: devices, worker threads, progress."""
