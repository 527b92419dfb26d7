"""Reading and writing pictures, sound and video.

Importing this package loads no decoder: each function imports what it needs when it runs.
"""
