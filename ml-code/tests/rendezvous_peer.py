"""One node of a rendezvous, as a process: adds its name to the shared state N times by the token that it read. For tests of real clusters.

usage: rendezvous_peer.py ENDPOINTS RUN_ID NAME N. Prints a line per entry that went in.
"""

import json
import sys
import time

import torch_stand_in

from raftgrid._plane import Plane, endpoints_of
from raftgrid.kv import Keys

with torch_stand_in.in_place():
    from raftgrid.torchrun import RaftgridRendezvousBackend


def main(endpoints, run_id, name, count):
    backend = RaftgridRendezvousBackend(Keys(Plane(endpoints_of(endpoints)), timeout_s=60.0), run_id)
    for number in range(count):
        while True:
            found = backend.get_state()
            entries = json.loads(found[0]) if found else []
            entry = f"{name}-{number}"
            _, _, went_in = backend.set_state(json.dumps(entries + [entry]).encode(), found[1] if found else None)
            if went_in:
                print(entry, flush=True)
                break
        time.sleep(0.02)


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
