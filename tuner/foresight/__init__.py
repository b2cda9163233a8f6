"""What can be known before a launch: rules, flags, memory, lessons of failures."""
