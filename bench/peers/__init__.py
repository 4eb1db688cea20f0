"""The programs of the Python peers, each as its own documentation sets it up; run as processes of their own."""
