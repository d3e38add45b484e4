"""prefork beside its peers in one run: `python -m tests.bench`, and the page it writes."""
