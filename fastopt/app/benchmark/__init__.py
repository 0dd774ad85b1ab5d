"""Steps of fastopt timed beside those of other libraries. `fastopt bench` is the short version.

To read in order: work, timing, contenders, libraries, memory, rows, command.
"""
