"""Settings: the table, where they come from, their reference page. Does no more than read."""
