"""A Sentinel-aware client as a user would write it: it knows the nodes and the service's name,
catches redis-py's own connection errors, and tries again. It is not told of the failover.

Writes with ONCE tokens, so that a repeated command is harmless, until PROGRESS.stop appears; then
checks that every write ran exactly once. Appends the number of writes to PROGRESS as it goes.

usage: follow.py SERVICE PROGRESS HOST:PORT ...
"""

import os
import sys
import time

from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from redis.sentinel import Sentinel

service, progress = sys.argv[1], sys.argv[2]
nodes = [(node.split(":")[0], int(node.split(":")[1])) for node in sys.argv[3:]]
sentinel = Sentinel(nodes, socket_timeout=1)
primary = sentinel.master_for(service, socket_timeout=2)

patience, done, errors = 60, 0, {}
with open(progress, "w", encoding="ascii") as out:
    while not os.path.exists(progress + ".stop"):
        deadline = time.monotonic() + patience
        while True:
            try:
                count = primary.execute_command("ONCE", f"follow-{done}", "INCR", "followed")
                break
            except (ConnectionError, TimeoutError, ResponseError) as error:
                errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
                if time.monotonic() > deadline:
                    raise
        done += 1
        if count != done:
            raise SystemExit(f"write {done} was counted as {count}: lost or doubled")
        if done % 50 == 0:
            out.write(f"{done}\n")
            out.flush()

final = int(primary.get("followed"))
if final != done:
    raise SystemExit(f"{done} writes were acknowledged, {final} are stored")
print(f"{done} writes, each exactly once; errors on the way: {errors or 'none'}")
