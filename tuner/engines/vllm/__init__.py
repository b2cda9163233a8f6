"""What tuner knows of vLLM, from 0.6 to 0.33: its command line, its log, its flags by version."""
