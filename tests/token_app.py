"""An app with keys in a token, and how its releases fare."""

import time
import uuid


def new_app(daemon, tmp_path, *more):
    app = "app-" + uuid.uuid4().hex[:8]
    made = tmp_path / f"{app}.pem"
    daemon.ok("app", "create", "--app-id", app, "--in-token", "--statement-key", made)
    daemon.ok(
        *("live-update", "generate-signing-key", "--app-id", app),
        *("--public", tmp_path / f"{app}-capawesome.pem", *more),
    )
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def publish(daemon, app, www, tmp_path):
    return daemon.run(
        *("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store"),
        *("--receipt", tmp_path / "receipt.json", "--channel", "production", "--json"),
    )


def back_within(daemon, app, www, tmp_path, seconds):
    """Publish until it works; return how long that took, and what was said until then."""
    said = []
    start = time.monotonic()
    while True:
        done = publish(daemon, app, www, tmp_path)
        if done.code == 0:
            return time.monotonic() - start, said
        said.append(done.err)
        assert time.monotonic() - start < seconds, said
