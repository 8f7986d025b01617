"""`python -m tulle.local.world MODE CONTROL_FD FOLDER`: become the keeper and the world of a mesh."""

import sys

from tulle.local.world.keeper import main

main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
