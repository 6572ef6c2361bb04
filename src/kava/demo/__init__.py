"""The demo: equal budgets, several signals, one table."""
