"""The gRPC edge: one servicer per proto."""
