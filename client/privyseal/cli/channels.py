"""The verbs of `privyseal live-update` about channels."""

from __future__ import annotations

import click

from privyseal.cli.common import APP, Output, command, connect, time_text
from privyseal.errors import ClientError

commands = click.Group("live-update", help="Bundle, upload and register live updates.")


@command(commands, "create-channel")
@APP
@click.option("--name", required=True)
@click.option("--ignore-errors", is_flag=True, help="Succeed if the channel exists.")
def create_channel(out: Output, app_id: str, name: str, *, ignore_errors: bool) -> None:
    """Create a channel.

    Example: privyseal live-update create-channel --app-id 042a1261 --name production
    """
    from privyseal.v1 import release_service_pb2 as pb

    with connect() as to:
        request = pb.CreateChannelRequest(parent=f"apps/{app_id}", channel_id=name)
        try:
            to.call(to.releases.CreateChannel, request)
        except ClientError as error:
            if not ignore_errors or error.reason != "CHANNEL_EXISTS":
                raise
    out.done({"channel": name}, f"channel {name} is there")


@command(commands, "list-channels")
@APP
def list_channels(out: Output, app_id: str) -> None:
    """List an app's channels and what they point at.

    Example: privyseal live-update list-channels --app-id 042a1261
    """
    from privyseal.v1 import release_service_pb2 as pb

    with connect() as to:
        request = pb.ListChannelsRequest(parent=f"apps/{app_id}")
        found = to.call(to.releases.ListChannels, request).channels
    rows = [{"name": c.name.rsplit("/", 1)[-1], "release": c.release} for c in found]
    out.done({"channels": rows}, *(f"{r['name']:<24} {r['release'] or '-'}" for r in rows))


@command(commands, "delete-channel")
@APP
@click.option("--name", required=True)
@click.option("--force", is_flag=True, help="Also one that devices are served from.")
def delete_channel(out: Output, app_id: str, name: str, *, force: bool) -> None:
    """Delete a channel; its devices get nothing from then on.

    Example: privyseal live-update delete-channel --app-id 042a1261 --name beta --force
    """
    from privyseal.v1 import release_service_pb2 as pb

    full = f"apps/{app_id}/channels/{name}"
    with connect() as to:
        if not force:
            listing = pb.ListChannelsRequest(parent=f"apps/{app_id}")
            found = to.call(to.releases.ListChannels, listing).channels
            served = next((c.release for c in found if c.name == full), "")
            if served:
                raise ClientError(
                    f"{full} gives devices {served}, and they would get nothing any more; --force "
                    "deletes it all the same"
                )
        request = pb.DeleteChannelRequest(name=full)
        to.call(to.releases.DeleteChannel, request)
    out.done({"channel": name}, f"deleted channel {name}")


@command(commands, "list-deployments")
@APP
@click.option("--name", required=True, help="The channel.")
@click.option("--first", default=5, show_default=True, type=click.IntRange(1, 100))
def list_deployments(out: Output, app_id: str, name: str, first: int) -> None:
    """List a channel's deployments, newest first.

    Example: privyseal live-update list-deployments --app-id 042a1261 --name production
    """
    from privyseal.v1 import release_service_pb2 as pb

    with connect() as to:
        request = pb.ListDeploymentsRequest(
            parent=f"apps/{app_id}/channels/{name}", page_size=first
        )
        found = to.call(to.releases.ListDeployments, request).deployments
        commits = {}
        for release in {d.release for d in found}:
            got = to.call(to.releases.GetRelease, pb.GetReleaseRequest(name=release))
            commits[release] = got.release.commit_sha
    rows = [
        {
            "buildId": d.release.rsplit("/", 1)[-1],
            "buildNumber": int(d.release.rsplit("/", 1)[-1]),
            "commitSha": commits[d.release],
            "version": d.version,
            "triggeredBy": d.principal,
            "deployedAt": time_text(d.create_time),
            "logIndex": d.log_index,
            "status": "SUCCESS",
        }
        for d in found
    ]
    lines = (
        f"{r['deployedAt']}  {r['buildId']:>6}  {r['version']:<20} {r['triggeredBy']}" for r in rows
    )
    out.done(
        {"name": name, "channelDeployments": rows},
        *(lines if rows else [f"nothing was deployed to {name} yet"]),
    )
