"""The WSGI application: `granian --interface wsgi wsgi:app`, `gunicorn wsgi:app`, `flask --app wsgi run`."""

from jobsvc.app import create_app

app = create_app()
