"""Runs a WSGI application for one request of a front."""

from __future__ import annotations

import io
import sys
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import WSGIApplication

from werkzeug.test import run_wsgi_app

from standin.front import Answer, Request


def environ_of(request: Request) -> dict[str, Any]:
    """PEP 3333's environment; text in it is bytes read as Latin-1."""
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": urlsplit(request.target).query,
        "RAW_URI": request.target,
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": request.headers.get("host", "").rpartition(":")[2],
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    for name, value in request.headers.items():
        plain = name.upper().replace("-", "_")
        environ[plain if plain in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{plain}"] = value
    # The front has put chunks together already.
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_LENGTH"] = str(len(request.body))
    return environ


def run(application: WSGIApplication, request: Request) -> Answer:
    body, status, headers = run_wsgi_app(application, environ_of(request), buffered=True)
    return Answer(int(status.split(" ", 1)[0]), b"".join(body), None, list(headers.items()))
