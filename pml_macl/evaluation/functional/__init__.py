"""The metrics as functions of ranked relevance, gains or label counts.

Import them from ``pml_macl.evaluation``. Their modules are in this folder, because a module with the name of its
function in ``pml_macl.evaluation`` would hide the function from tools that read the sources.
"""
