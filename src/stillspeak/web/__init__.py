"""The web application: the studio at ``/`` and the live page at ``/live``, in one FastAPI app."""
