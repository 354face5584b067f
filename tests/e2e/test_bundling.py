import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from privyseal.bundling.bundle import write_bundle
from privyseal.errors import BuildError


def test_the_zip_holds_the_tree_and_its_manifest(www, tmp_path):
    (www / "big.bin").write_bytes(os.urandom(3 << 20) + b"a" * (2 << 20))
    bundle = write_bundle(www, tmp_path / "bundle.zip")

    with zipfile.ZipFile(bundle.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        manifest = json.loads(archive.read("pro-manifest.json"))
        assert [e["href"] for e in manifest] == names[:-1]
        for entry in manifest:
            content = (www / entry["href"]).read_bytes()
            assert archive.read(entry["href"]) == content
            assert list(entry) == ["href", "size", "integrity"]
    assert bundle.sha256 == hashlib.sha256(bundle.path.read_bytes()).digest()
    assert bundle.length == bundle.path.stat().st_size


def test_same_tree_same_bytes_whatever_surrounds_it(www, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for path in sorted(www.rglob("*"), reverse=True):
        if path.is_file():
            target = copy / path.relative_to(www)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
            os.utime(target, (1, 1))
    digests = set()
    # Python reads names as UTF-8 in all of them, but for the last.
    for root, umask, extra in (
        (www, "077", {"LC_ALL": "C", "TZ": "UTC"}),
        (copy, "022", {"LC_ALL": "C.UTF-8", "TZ": "Pacific/Apia"}),
        (copy, "000", {"LC_ALL": "POSIX", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}),
        (www, "027", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ):
        done = subprocess.run(
            [
                *("sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-m", "privyseal"),
                *("live-update", "bundle-artifact", "--build-dir", root),
                *("--output-path", tmp_path / "b.zip", "--json"),
            ],
            env={**os.environ, **extra},
            capture_output=True,
            check=True,
            timeout=60,
        )
        digests.add(json.loads(done.stdout)["sha256"])
    assert len(digests) == 1


def test_source_maps_stay_out_unless_asked_for(www, tmp_path):
    (www / "app.js.map").write_text("{}")
    assert write_bundle(www, tmp_path / "a.zip").left_out == 1
    assert write_bundle(www, tmp_path / "b.zip", source_maps=True).files == 5


def test_names_that_one_plugin_cannot_ask_for_are_told(www, tmp_path):
    (www / "100% x.js").write_text("x")
    assert write_bundle(www, tmp_path / "a.zip").misread == ()
    (www / "a#b.js").write_text("x")
    (www / "100%25 x.js").write_text("x")
    assert set(write_bundle(www, tmp_path / "b.zip").misread) == {"a#b.js", "100%25 x.js"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "privyseal", "live-update", "bundle-artifact"),
            *("--build-dir", www, "--output-path", tmp_path / "bundle.zip"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "2 names, such as '100%25 x.js'" in done.stderr


def break_it(www, how):
    if how == "missing":
        shutil.rmtree(www)
    elif how == "empty":
        shutil.rmtree(www)
        www.mkdir()
    elif how == "no index.html":
        (www / "index.html").unlink()
    elif how == "link":
        (www / "link").symlink_to("/etc/passwd")
    elif how == "name":
        (www / "a\\b.js").write_text("x")
    elif how == "not utf-8":
        (www / "x").rename(www / "y") if (www / "x").exists() else None
        with open(os.fsencode(www) + b"/\xff.js", "w"):
            pass
    elif how == "pipe":
        os.mkfifo(www / "pipe")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("no index.html", "no index.html"),
        ("link", "leaves the build directory"),
        ("name", "cannot hold"),
        ("not utf-8", "not a UTF-8 name"),
        ("pipe", "not a regular file"),
    ],
)
def test_a_bad_tree_gets_one_clear_line_and_leaves_nothing(www, tmp_path, how, text):
    break_it(www, how)
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "privyseal", "live-update", "bundle-artifact"),
            *("--build-dir", www, "--output-path", out / "bundle.zip"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(out.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_noticed(www, tmp_path, monkeypatch):
    from privyseal.bundling import bundle

    real = bundle.scan

    def scan_then_change(*args, **kwargs):
        tree = real(*args, **kwargs)
        (www / "index.html").write_text("changed")
        return tree

    monkeypatch.setattr(bundle, "scan", scan_then_change)
    with pytest.raises(BuildError, match="changed while"):
        write_bundle(www, tmp_path / "bundle.zip")
    assert not list(tmp_path.glob("*bundle.zip*"))


def test_a_bundle_is_not_written_into_its_own_build(www):
    with pytest.raises(BuildError, match="in the build directory"):
        write_bundle(www, www / "bundle.zip")
    assert not list(www.glob("*.zip*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_half_done(www, tmp_path, number):
    (www / "big.bin").write_bytes(os.urandom(1 << 20) * 200)
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "privyseal", "live-update", "bundle-artifact"),
            *("--build-dir", www, "--output-path", out / "bundle.zip"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not list(out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "privyseal: interrupted\n"
    assert list(out.iterdir()) == []


INTERRUPTED = """
import sys
from privyseal import __main__
from privyseal.cli import main
def interrupted(*_): raise KeyboardInterrupt
{place} = interrupted
sys.argv = ["privyseal", "app", "list"]
__main__.main()
"""


@pytest.mark.parametrize("place", ["main.run", "main.importlib.import_module"])
def test_an_interruption_is_one_line_whenever_it_comes(place):
    """Also while the program still imports what it needs, or looks at its arguments."""
    program = [sys.executable, "-c", INTERRUPTED.format(place=place)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (130, "privyseal: interrupted\n")
