"""Pictures and speech become videos: uploads, jobs, API."""
