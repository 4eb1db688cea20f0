"""`make chaos`: jobs are posted while everything that runs them is killed, and every one is accounted for.

Read `deployment.py` (what is run), `load.py` (what is asked of it), `faults.py` (what is done to it), then
`audit.py` (what has to hold afterwards).
"""
