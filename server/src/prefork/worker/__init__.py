"""What runs in molds and workers: the import of the app, the fork, the loop next to the engine."""
