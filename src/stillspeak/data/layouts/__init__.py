"""Official and free ways in which corpora lie on disk, one module each."""
