"""`python -m tests.demo`: what `make demo` shows."""
