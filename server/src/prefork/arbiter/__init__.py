"""The arbiter: collects events, decides, acts. Never imports the app."""
