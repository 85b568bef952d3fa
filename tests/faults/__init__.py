"""Faults: a C library that fails writes, whole runs under faults, random configurations."""
