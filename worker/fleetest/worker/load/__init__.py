"""
A load generator: runs Locust as a library, in the interpreter of its task.

The agent copies these files to where that interpreter sees them, as a program and a package `fleetest_load`. So they
import one another relatively, and nothing else but Locust, hdrhistogram and the standard library, of Python 3.10 on.
"""
