"""The scripts of the pipeline, a package a room."""

import logging

# If it is installed, other libraries import it, and it warns in each job about kernels that this machine lacks.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
