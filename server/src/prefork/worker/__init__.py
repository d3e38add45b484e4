"""What runs in molds and workers: the import of the app, the fork, the loop beside the engine."""
