"""What `make gpu-bench` measures."""
