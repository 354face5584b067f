"""Command lines that are wrong, told to programs as any other failure is."""

import json

import pytest
from click.testing import CliRunner
from privyseal.cli.main import cli


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("live-update list-channels --json --bogus", "No such option '--bogus'."),
        ("live-update list-channels --output json", "Missing option '--app-id'."),
        ("live-update list-channels --output=json", "Missing option '--app-id'."),
        ("publish --json", "Missing option '--app-id'."),
        ("app list --json more", "unexpected extra argument (more)"),
        ("--server= app list --json", "is empty; is a variable unset?"),
        ("appp list --json", "No such command 'appp'."),
    ],
)
def test_a_wrong_command_line_is_one_json_object_if_that_was_asked_for(line, says):
    done = CliRunner().invoke(cli, line.split())
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert told["status"] == "error"
    assert says in told["error"]
    assert says in done.stderr
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("line", ["publish", "appp list", "publish --commit-message json"])
def test_people_get_no_json(line):
    done = CliRunner().invoke(cli, line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error:" in done.stderr
