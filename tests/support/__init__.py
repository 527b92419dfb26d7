"""What several test files share: made-up faces and sounds, stand-ins, servers, kills."""
