"""Inside the sandbox: limit this process, then run the program from standard input.

This file is passed to Python as text, so it imports only the standard library. Arguments: bytes of memory, number of
processes, seconds of processor time. The first line of the input is a token. It is written to standard output if the
program runs to its end. Exit codes prove nothing, since a program can exit with any.
"""

import os
import resource
import sys


def run() -> None:
    memory, processes, seconds = map(int, sys.argv[1:])
    token, program = sys.stdin.buffer.read().decode().split("\n", 1)
    result, own = os.dup(1), os.getpid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for resource_type, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 16 * 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(resource_type, (limit, limit))
    try:
        exec(compile(program, "answer", "exec"), {})
    except BaseException as error:  # any exception is a failure, SystemExit included
        message = f"{type(error).__name__}: {error}"[:150]
    else:
        message = token
    if os.getpid() == own:  # not in a process that the program forked
        os.write(result, message.encode("utf-8", "replace"))
    os._exit(0)


run()
