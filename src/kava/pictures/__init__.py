"""Pictures: plain numbers drawn by one set of rules; only commands and reports draw."""
