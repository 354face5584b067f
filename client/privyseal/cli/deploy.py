"""`privyseal deploy web`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from privyseal.cli.common import APP, Output, command, connect, time_text
from privyseal.errors import ClientError

commands = click.Group("deploy", help="Point channels at releases.")


@command(commands, "web", aliases=("live-update",))
@APP
@click.option("--detached", is_flag=True, hidden=True, expose_value=False, help="It always is.")
@click.option("--build-id", required=True, help="The release's number.")
@click.option("--destination", multiple=True, required=True, help="A channel; repeatable.")
def web(out: Output, app_id: str, build_id: str, destination: tuple[str, ...]) -> None:
    """Point channels at a release.

    Example: privyseal deploy web --app-id 042a1261 --build-id 7 --destination production
    """
    with connect() as to:
        made = deploy_release(to, f"apps/{app_id}/releases/{build_id}", destination)
    out.done(
        {
            "appId": app_id,
            "buildId": build_id,
            "buildNumber": int(made[0].release.rsplit("/", 1)[-1]),
            "buildStatus": "SUCCESS",
            "deployedAt": time_text(made[0].create_time),
            "platform": "web",
            "channels": list(destination),
            "logIndexes": [d.log_index for d in made],
        },
        *(f"{d.channel} -> {d.release}  (log index {d.log_index})" for d in made),
    )


def require_channels(to: Any, app: str, channels: Sequence[str]) -> None:
    """Check that channels exist before anything is done. Raises ClientError."""
    from privyseal.v1 import release_service_pb2 as pb

    found = to.call(to.releases.ListChannels, pb.ListChannelsRequest(parent=f"apps/{app}"))
    have = {c.name.rsplit("/", 1)[-1] for c in found.channels}
    if missing := [name for name in channels if name not in have]:
        raise ClientError(
            f"apps/{app} has no channel {missing[0]}; create it with: privyseal live-update "
            f"create-channel --app-id {app} --name {missing[0]}"
        )


def deploy_release(to: Any, release: str, channels: Sequence[str]) -> Any:
    """Point channels at a release and return the deployments."""
    from privyseal.v1 import release_service_pb2 as pb

    app = release.rsplit("/releases/", 1)[0]
    request = pb.DeployRequest(release=release, channels=[f"{app}/channels/{c}" for c in channels])
    return to.call(to.releases.Deploy, request).deployments
