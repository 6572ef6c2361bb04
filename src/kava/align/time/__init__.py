"""Time warps: a trace at another number of positions, segment by segment."""
