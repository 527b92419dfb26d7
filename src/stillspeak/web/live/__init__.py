"""The live page: WebRTC sessions."""
