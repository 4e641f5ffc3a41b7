"""What ``up --follow-parent`` does, by itself: prints its number and runs until its parent is over."""

import os
import signal
import time

from ragsite.processes import die_with_parent, watch_parent

is_over = watch_parent()
die_with_parent(signal.SIGTERM)
print(os.getpid(), flush=True)
while not is_over():
    time.sleep(0.1)
