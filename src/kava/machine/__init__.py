"""What this process runs on: the scheduler, the job's share, cores and memory of the host."""
