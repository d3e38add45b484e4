"""Flask's own first example: what one request costs with a framework in it."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return "Hello, World!\n"
