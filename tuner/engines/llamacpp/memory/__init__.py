"""What llama.cpp's server takes of memory."""
