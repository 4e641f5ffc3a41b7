"""A stack of small children for the tests: ``stack_script.py <data> <port> <kind of worker> [<kind of set-up>]``."""

import sys
from pathlib import Path

from ragsite.embedded_files import StartError
from ragsite.stack import Part, Stack, check_port, hold_stack

WEB = (
    "import http.server, sys\n"
    "class Answer(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers()\n"
    "print('serving')\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Answer).serve_forever()\n"
)
WORKERS = {
    "calm": "import time\nprint('working', flush=True)\ntime.sleep(600)\n",
    "deaf": (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)\n"
    ),
    "dying": "print('cannot work')\nraise SystemExit(3)\n",
    "parent": (
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '601'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(600)\n"
    ),
}

SETUPS = {
    "short": "import time\nprint('setting up', flush=True)\ntime.sleep(1)\nprint('set up', flush=True)\n",
    "failing": "print('no database')\nraise SystemExit(2)\n",
}


def main() -> None:
    data, port, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    try:
        with hold_stack(data=data):
            check_port(host="127.0.0.1", port=port)
            Stack(
                parts=[
                    *(
                        Part("setup", [sys.executable, "-c", SETUPS[kind]], once=True)
                        for kind in sys.argv[4:]
                    ),
                    Part("web", [sys.executable, "-c", WEB, str(port)]),
                    Part("worker", [sys.executable, "-c", WORKERS[kind]], waits=True),
                ],
                data=data,
                ready_url=("127.0.0.1", port, "/livez"),
                announcement="READY",
            ).run()
    except StartError as error:
        sys.exit(str(error))
    print("STOPPED")


main()
