"""What runs inside the interpreter of a job.

It uses only the standard library, and little of it: each import is a part of the start of every job.
"""
