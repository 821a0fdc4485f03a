"""A process that recomputes the ε of other members' spend statements, with limits and a low priority.

Each line of standard input is a request, {"events": [[q, σ_eff, count]], "delta"} in JSON; its answer is a line with ε
in thousandths, rounded up. More than MEMORY or SECONDS of CPU ends the process: missing answers show that.
"""

import json
import os
import resource
import sys

from .accountant import claimed, epsilon

MEMORY = 2 << 30  # bytes of address space; most of it is mapped by the accountant's libraries
SECONDS = 60  # of CPU, for all requests together


def main() -> None:
    """Answer line by line until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    os.nice(10)
    for line in sys.stdin:
        request = json.loads(line)
        events = [(float(q), float(sigma), int(count)) for q, sigma, count in request["events"]]
        sys.stdout.write(f"{claimed(epsilon(events, float(request['delta'])))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
