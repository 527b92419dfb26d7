"""The web application: the studio at ``/`` and the live page at ``/live``, in one FastAPI app.

    from stillspeak.web.app import ServeSettings, create_app

    app = create_app(ServeSettings())

Needs the ``serve`` extra. Pages are files of this package: no build step, nothing from elsewhere.
"""
