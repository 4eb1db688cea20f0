"""The application under granian's RSGI: whole requests are read on an event loop before they get a thread.

So what a client holds while it sends, waits or reads is a connection and some memory, both within limits.
"""
