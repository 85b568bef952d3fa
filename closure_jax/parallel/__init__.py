"""Processes, devices and the progress that process 0 shows."""
