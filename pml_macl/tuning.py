"""Sizes that were tuned by measurement; they change how fast the code is and how much memory it takes, nothing else.

Each name says what it limits; the comment says why this value and which command measured it (two CPU cores).
"""

# Elements of one block of pairs (anchors x references): enough work for all threads, and a few MiB per matrix.
# benchmarks/loss.py: blocks of 2**16 to 2**21 elements differ by less than the spread of the measurement.
BLOCK_ELEMENTS = 2**20
# But at least so many anchors, since a matrix product of fewer rows is slow.
BLOCK_ROWS = 32

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

# Columns up to which label sets are compared by a dense matrix product. Wider label sets are mostly zeros, and a sparse
# product takes less time. Chosen as a round number above the class counts of the common data sets (17 to 80); no
# measurement is on record.
DENSE_LABEL_COLUMNS = 128
