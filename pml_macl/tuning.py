"""Sizes that affect the speed and the memory of the code, but not what it computes.

The comment above each constant gives the reason for its value, and the command that measured it on two CPU cores.
"""

# Number of pairs (anchors x references) in one block: 1 MiB per matrix in float32. In benchmarks/loss.py, the times
# with 2**17 to 2**20 differ by less than their spread. Smaller blocks need less memory.
BLOCK_ELEMENTS = 2**18
# Smallest number of anchors in a block, because a matrix product of fewer rows is slow.
BLOCK_ROWS = 32
# Largest number of classes for which one matrix product computes the sums over shared labels (DENSE_LABELS) or over
# shared pairs of labels (DENSE_LABEL_PAIRS). With more classes, label sets are sparse, and adding the rows of each
# anchor is faster: see the runs with 80 and 1000 classes in benchmarks/loss.py. The evaluation compares label sets with
# a sparse product above DENSE_LABELS.
DENSE_LABELS = 128
DENSE_LABEL_PAIRS = 24

# Peak bytes of temporary tensors per query in an evaluation: for each reference of a block, rank and class. The values
# are not measured: they are counted from the tensors that ranking and metrics hold at the same time, and rounded up. As
# a check, `benchmarks/evaluation.py compare --sizes 3000 --runs pml_macl` reports less than 64 MiB.
EVALUATION_BYTES_PER_REFERENCE = 12
EVALUATION_BYTES_PER_RANK = 64
EVALUATION_BYTES_PER_CLASS = 16

# Number of references that are compared with a chunk of queries at once, if fewer than 1 in REFERENCES_PER_RANK of them
# are ranked; larger blocks keep this ratio. To find the nearest of a block, the ranker first takes the minimum of each
# GROUP_SIZE distances. For 4,000 queries x 20,000 references, k = 100 and one thread, 2**15 and 8 take 0.46 s of CPU
# time with all metrics; 2**14 takes 0.47 s, and groups of 16 take 0.47 s and 0.52 s.
REFERENCES_AT_ONCE = 2**15
REFERENCES_PER_RANK = 64
GROUP_SIZE = 8

# Bytes that the temporary tensors of an evaluation may take if the user sets no budget. On a CPU, the chunks of all
# threads share the budget, so that each chunk fits into a cache. On a GPU, one chunk uses it all and is large enough to
# keep the GPU busy. The values follow from this reasoning; they are not measured.
EVALUATION_CPU_BUDGET = 2**26
EVALUATION_GPU_BUDGET = 2**30
