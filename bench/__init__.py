"""`make bench`: the service beside its peers, on the same machine and the same servers, in turn."""
