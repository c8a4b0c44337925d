"""Does a run that is killed again and again end with the bits of one that never was?

- comparison: what two runs left behind, bit for bit
- kills: when and how a run is killed
- victim: what is killed: a program in a process that tells how far it is, and has a crash point
- full_net: a program with what train.py's models do not have
"""
