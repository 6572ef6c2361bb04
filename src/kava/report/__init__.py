"""The page of a study: its logs, read whole or refused, and what may be said of them."""
