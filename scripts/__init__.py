"""The scripts of the pipeline, a package a room."""

import logging

# Where it is installed, other libraries import it, and it would tell each job which of its kernels this machine lacks.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
