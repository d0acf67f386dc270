"""Tables that cannot lie: runs whose test split is sealed while they fit, their controls, statistics and tables.

A table is a list of runs = (data set, model, seed); a script names the data sets, the engine and the seeds, and calls `main`.
"""
