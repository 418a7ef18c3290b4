"""Prints the rate of a command that reads requests and writes scores: exec.py RECORDS COMMAND
< requests. The first record is not measured, because the command starts meanwhile."""

import subprocess
import sys
import threading
import time

records, command = int(sys.argv[1]), sys.argv[2]
lines = [line for _, line in zip(range(records + 1), sys.stdin.buffer)]
process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
process.stdin.write(lines[0])
process.stdin.flush()
process.stdout.readline()


def feed():
    process.stdin.write(b"".join(lines[1:]))
    process.stdin.close()


started = time.perf_counter()
feeding = threading.Thread(target=feed)
feeding.start()
scores = sum(b'"result":{' in line for line in process.stdout)
taken = time.perf_counter() - started
feeding.join()
if process.wait() or scores != len(lines) - 1:
    sys.exit(f"{command}: status {process.returncode}, {scores} results of {len(lines) - 1}")
print(f"{scores / taken:.0f}")
