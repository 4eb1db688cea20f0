"""The handlers that come with jobsvc."""
