"""What is stored of a study, and what it found."""
