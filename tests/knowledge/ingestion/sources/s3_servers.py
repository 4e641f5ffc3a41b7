"""A real S3 server of the loopback address (moto's, which checks signatures), and one that misbehaves."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3

BUCKET = "handbook"


@dataclass
class S3Site:
    """``client`` is boto3's, signed with ``keys``, which are those of a user who may do everything."""

    url: str
    keys: dict[str, str] = field(repr=False)
    client: Any

    def put(self, key: str, body: bytes, **options: Any) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body, **options)

    def empty(self) -> None:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for row in page.get("Contents", []):
                self.client.delete_object(Bucket=BUCKET, Key=row["Key"])


def _client(service: str, url: str, keys: dict[str, str]) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=keys["access_key"],
        aws_secret_access_key=keys["secret_key"],
    )


@contextmanager
def s3_site() -> Iterator[S3Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None, "moto did not start"
                time.sleep(0.05)
        anybody = {"access_key": "anybody", "secret_key": "anything"}
        iam = _client("iam", url, anybody)
        iam.create_user(UserName="reader")
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        may = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}], "Version": "2012-10-17"}
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(may))
        _client("s3", url, anybody).create_bucket(Bucket=BUCKET)
        # From now on who asks has to prove it.
        asking = urllib.request.Request(
            f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(asking).close()
        keys = {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}
        yield S3Site(url=url, keys=keys, client=_client("s3", url, keys))
    finally:
        process.terminate()
        process.wait(timeout=20)


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Scripted:
    """A server that answers as ``answer`` says: of a path with its query, ``(status, headers, body)``."""

    url: str = ""
    answer: Callable[[str], Answer] = lambda path: (200, {}, b"")
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def scripted_site() -> Iterator[Scripted]:
    site = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            site.paths.append(self.path)
            site.headers.append(dict(self.headers.items()))
            status, headers, body = site.answer(self.path)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
