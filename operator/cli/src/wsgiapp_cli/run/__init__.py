"""`wsgiapp run`: serve a manifest on this machine, and follow its changes."""
