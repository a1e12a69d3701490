"""The worker: serves runs and other jobs from the queues."""
