"""Reading the log of llama.cpp's server."""
