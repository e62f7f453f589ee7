"""A tiled server in a process of its own: two in one process take each other's settings.

Says its address in one line and serves until its input ends.
"""

import sys

from tiled.server.simple import SimpleTiledServer

server = SimpleTiledServer(sys.argv[1], readable_storage=[sys.argv[2]])
sys.stdout.write(f"{server.uri}\n")
sys.stdout.flush()
sys.stdin.read()
server.close()
