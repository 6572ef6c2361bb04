"""Studies on a cluster: scripts for a scheduler, their jobs, and checks before them."""
