"""What `make gpu-check` checks, one file for each part of the library."""
