"""Sizes that were tuned by measurement; they change how fast the code is and how much memory it takes, nothing else.

Each name says what it limits; the comment says why this value and which command measured it (two CPU cores).
"""

# Elements of one block of pairs (anchors x references): enough work for all threads, and a few MiB per matrix.
# benchmarks/loss.py: blocks of 2**16 to 2**21 elements differ by less than the spread of the measurement.
BLOCK_ELEMENTS = 2**20
# But at least so many anchors, since a matrix product of fewer rows is slow.
BLOCK_ROWS = 32
# Up to so many classes, sums over shared labels (over shared pairs of labels) are one matrix product with a row per
# label (per pair of labels). With more classes, label sets are sparse and adding up the rows of each anchor is faster:
# 80 and 1000 classes in benchmarks/loss.py.
DENSE_LABELS = 128
DENSE_LABEL_PAIRS = 24
