"""Steps of fastopt timed beside those of other libraries. `fastopt bench` is the short version, bench/peers.py all of it.

To read in order: work, timing, contenders, libraries, memory, rows, command.
"""
