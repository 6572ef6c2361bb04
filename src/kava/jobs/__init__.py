"""Jobs in worker processes, a few at a time, with one view of where they stand."""
