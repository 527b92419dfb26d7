"""What every floor stands on: files, processes, configuration."""
