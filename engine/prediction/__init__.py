"""Prediction of whole cases: which are done, the pipeline that does the others, and everything that it writes."""
