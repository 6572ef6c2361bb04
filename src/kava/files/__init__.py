"""Files and folders that are written: whole or absent, one writer at a time, in allowed places."""
