"""The programs gtcp is measured against, and gtcp's own: each a process of its own, started by the harness.

Every client speaks the rounds protocol of ``wire.h``; every server prints its port and ends when its stdin ends.
"""
