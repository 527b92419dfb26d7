"""What says that a video is synthetic: watermark, credentials, label."""
