"""The metrics as functions of ranked relevance, gains or label counts.

They are public under ``pml_macl.evaluation``. They are defined in this folder so that no module there has the name of
a function, which would hide the function from tools that read the sources.
"""
