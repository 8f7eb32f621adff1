#!/usr/bin/python3
"""nbd.py: objmap's NBD server beside nbdkit's memory plugin and the bare limit.

    bench/nbd.py [--seconds 2] [--rounds 3] [--only read-4k-16,...]

Every case is run in rounds, in each round on all servers one after the other,
so that a noisy machine is noisy for all; what counts are the ratios of the
medians.  Needs fio with its nbd engine, nbdkit, and the built programs:
OBJMAP (the objmap binary) or NBD_SERVE (the tests' server), and NBD_LIMIT.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
SIZE_MIB = 256
# name, fio's rw, block size, depth, what the ratio to nbdkit must reach
CASES = [
    ("read-4k-1", "randread", 4096, 1, 1.2),
    ("read-4k-4", "randread", 4096, 4, 1.8),
    ("read-4k-16", "randread", 4096, 16, 1.6),
    ("read-4k-64", "randread", 4096, 64, 1.5),
    ("read-1m-4", "randread", MIB, 4, 1.0),
    ("write-4k-1", "randwrite", 4096, 1, 1.2),
    ("write-4k-4", "randwrite", 4096, 4, 1.8),
    ("write-4k-16", "randwrite", 4096, 16, 1.6),
    ("write-4k-64", "randwrite", 4096, 64, 1.5),
    ("write-1m-4", "randwrite", MIB, 4, 1.0),
]


def servers(folder, objmap, serve, limit):
    """Command lines by name; each listens at folder/NAME."""
    size = f"{SIZE_MIB}M"
    uri = f"nbd+unix:///?socket={folder}/objmap"
    result = {}
    if serve:
        result["objmap"] = [serve, f"memory:{size}", "--unix", f"{folder}/objmap"]
    else:
        result["objmap"] = [objmap, "mount", f"memory:{size}", uri, "--foreground"]
    result["nbdkit"] = ["nbdkit", "-f", "-U", f"{folder}/nbdkit", "memory", size]
    result["limit"] = [limit, f"{folder}/limit", str(SIZE_MIB)]
    result["limit+poll"] = [limit, f"{folder}/limit+poll", str(SIZE_MIB), "poll"]
    return result


def start(name, command, folder):
    log = open(f"{folder}/{name}.log", "wb")
    env = dict(os.environ, OBJMAP_RUNTIME_DIR=folder)
    process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    deadline = time.monotonic() + 10
    while not os.path.exists(f"{folder}/{name}"):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{name} did not start: {' '.join(command)}\n"
                     + open(f"{folder}/{name}.log").read())
        time.sleep(0.05)
    return process


def fio(socket, rw, block, depth, seconds):
    """Requests per second."""
    command = ["fio", "--name=x", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}",
               f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", f"--size={SIZE_MIB}M",
               "--time_based", f"--runtime={seconds}", "--output-format=json",
               "--randrepeat=1", "--norandommap"]
    run = subprocess.run(command, capture_output=True, timeout=seconds + 60, check=True)
    job = json.loads(run.stdout[run.stdout.index(b"{"):])["jobs"][0]
    return job["read" if "read" in rw else "write"]["iops"]


def fill(socket):
    """Every block is written once, so that reads do not meet holes only."""
    fio(socket, "write", MIB, 4, 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    folder = tempfile.mkdtemp(prefix="nbd")
    commands = servers(folder, os.environ.get("OBJMAP", "objmap"),
                       os.environ.get("NBD_SERVE"), os.environ.get("NBD_LIMIT", "nbd-limit"))
    running = []
    missed = 0
    try:
        for name, command in commands.items():
            running.append(start(name, command, folder))
            fill(f"{folder}/{name}")
        print(f"{'case':12}" + "".join(f"{name:>12}" for name in commands)
              + f"{'/nbdkit':>9}{'goal':>6}{'/limit':>8}")
        for case, rw, block, depth, goal in CASES:
            if only and case not in only:
                continue
            rates = {name: [] for name in commands}
            for _ in range(arguments.rounds):
                for name in commands:
                    rates[name].append(fio(f"{folder}/{name}", rw, block, depth,
                                           arguments.seconds))
            median = {name: statistics.median(rates[name]) for name in commands}
            ratio = median["objmap"] / median["nbdkit"]
            best = max(median["limit"], median["limit+poll"])
            missed += ratio < goal
            print(f"{case:12}" + "".join(f"{median[name]:12.0f}" for name in commands)
                  + f"{ratio:9.2f}{goal:6.1f}{median['objmap'] / best:8.2f}", flush=True)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
