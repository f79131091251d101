"""How fast natsproc is, beside the bare bus and the alternatives, in the same run on the same machine.

`make bench`, or `python -m benchmarks [SECTION…] [--rounds N] [--quick]`. What is measured, and how, is in
docs/performance.md. `measures/` has one file a measure, `peers/` one a peer: short, and as its own documentation does it.
"""
