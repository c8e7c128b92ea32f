"""Sizes that were tuned by measurement; they change how fast the code is and how much memory it takes, nothing else.

Each name says what it limits; the comment says why this value and which command measured it (two CPU cores).
"""

# Elements of one block of pairs (anchors x references): 1 MiB per matrix in float32. In benchmarks/loss.py the times
# with 2**17 to 2**20 differ by less than their spread, and smaller blocks need less memory.
BLOCK_ELEMENTS = 2**18
# But at least so many anchors, since a matrix product of fewer rows is slow.
BLOCK_ROWS = 32
# Up to so many classes, sums over shared labels (over shared pairs of labels) are one matrix product with a row per
# label (per pair of labels). With more classes, label sets are sparse and adding up the rows of each anchor is faster:
# 80 and 1000 classes in benchmarks/loss.py. The evaluation compares label sets by a sparse product beyond DENSE_LABELS.
DENSE_LABELS = 128
DENSE_LABEL_PAIRS = 24

# Bytes that the temporaries of one query take in an evaluation at the peak: per reference, per rank and per class.
# Counted from the tensors that ranking and metrics hold at one time, and rounded up; no measurement is on record. That
# they suffice shows in the column MiB of benchmarks/evaluation.py compare --sizes 3000 --runs pml_macl: below 64.
EVALUATION_BYTES_PER_REFERENCE = 12
EVALUATION_BYTES_PER_RANK = 64
EVALUATION_BYTES_PER_CLASS = 16

# Bytes that the temporaries of an evaluation may take if the user sets no budget. On a CPU the chunks of all threads
# together, so that each fits into a cache; on a GPU one chunk, large enough to keep it busy. Chosen by that reasoning;
# no measurement is on record.
EVALUATION_CPU_BUDGET = 2**26
EVALUATION_GPU_BUDGET = 2**30
