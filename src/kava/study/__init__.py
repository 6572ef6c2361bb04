"""Studies: arms × seeds with equal budgets, from a plan written down before the first run."""
