"""The Privyseal daemon: keyholder, signing, log, releases and the gateway for devices."""

import os

# gRPC writes lines of its own, one for each handshake that fails: strangers could fill the
# daemon's log with them. What goes wrong here is said by the daemon. Set before gRPC is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
