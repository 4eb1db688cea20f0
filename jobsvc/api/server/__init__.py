"""The application under granian's RSGI: a request is read completely on an event loop before it gets a thread.

So a client that sends, waits or reads uses only a connection and some memory, and both are limited.
"""
