"""prefork: a pre-fork WSGI server whose workers are replaced and reloaded without a lost request."""

__version__ = "0.1.0"
