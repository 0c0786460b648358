"""The other side of the sandbox: bounds this process, then runs the program that comes on standard input.

It is handed over as text and stands alone. Arguments: bytes of memory, processes, seconds of processor time. The first
line of the input is written back when the program came to its end, and nothing but that proves it, since a program may
end itself with any code.
"""

import os
import resource
import sys


def run() -> None:
    memory, processes, seconds = map(int, sys.argv[1:])
    passed, program = sys.stdin.buffer.read().decode().split("\n", 1)
    result, own = os.dup(1), os.getpid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for what, bound in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 16 * 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (bound, bound))
    try:
        exec(compile(program, "answer", "exec"), {})
    except BaseException as error:  # whatever it raises, it has failed
        said = f"{type(error).__name__}: {error}"[:150]
    else:
        said = passed
    if os.getpid() == own:  # not a child that the program forked
        os.write(result, said.encode("utf-8", "replace"))
    os._exit(0)


run()
