"""Arms, stops, resets and drops from many threads, then does the accounts: arms = fires + cancels, exactly.

    python tests/stress/ledger.py --seconds 20 --threads 6 --seed 1

Every thread works on handles of its own; check() runs beside them all the while. Exits with 1 if the ledger is off.
"""

import argparse
import faulthandler
import random
import sys
import threading
import time

from timerheap import AfterFunc, TimerHeap

DELAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 5.0, 5.0, 5.0)
"""Upper bounds of the random delays, in seconds: due at once, soon, and hardly ever before they are stopped."""


class Ledger:
    def __init__(self):
        self.arms = self.cancels = 0


def churn(heap, ledger, seed, until, fire):
    chance, handles = random.Random(seed), []
    while time.monotonic() < until:
        for _ in range(200):
            kind, delay = chance.random(), chance.choice(DELAYS) * chance.random()
            if kind < 0.35 or not handles:
                handle = AfterFunc(delay, fire, heap=heap)
                ledger.arms += 1
                if chance.random() < 0.8:
                    handles.append(handle)
            elif kind < 0.6:
                ledger.cancels += chance.choice(handles).stop()
            elif kind < 0.85:
                ledger.arms += 1
                ledger.cancels += chance.choice(handles).reset(delay)
            else:
                handles.pop(chance.randrange(len(handles)))
        if len(handles) > 3000:
            del handles[:1500]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    faulthandler.dump_traceback_later(args.seconds + 120, exit=True)
    sys.setswitchinterval(1e-5)
    fires = 0

    def fire():
        nonlocal fires  # the worker alone comes here
        fires += 1

    with TimerHeap("stress") as heap:
        until = time.monotonic() + args.seconds
        ledgers = [Ledger() for _ in range(args.threads)]
        threads = [
            threading.Thread(target=churn, args=(heap, ledger, seed + k, until, fire))
            for k, ledger in enumerate(ledgers)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            heap.check()
            time.sleep(0.05)
        while len(heap):
            time.sleep(0.05)
        heap.check()
    arms, cancels = (sum(getattr(ledger, name) for ledger in ledgers) for name in ("arms", "cancels"))
    print(f"{args.threads} threads: {arms} arms, {fires} fires, {cancels} cancels, balance {arms - fires - cancels}")
    sys.exit(arms != fires + cancels)


if __name__ == "__main__":
    main()
