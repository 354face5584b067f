"""Which files a build has: each rule for names, links and numbers, broken alone."""

import os

import pytest
from privyseal.bundling import bundle, tree
from privyseal.errors import BuildError
from privyseal.verify import MANIFEST


@pytest.fixture
def build(tmp_path):
    root = tmp_path / "www"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<h1>hello</h1>")
    (root / "assets/app.js").write_text("1")
    return root


def names(root):
    return [file.name for file in tree.scan(root).files]


def refused(root, says):
    with pytest.raises(BuildError, match=says):
        tree.scan(root)


def test_files_are_ordered_by_the_bytes_of_their_names(build):
    for name in ("B.js", "a.js", "é.js", "\U0001f600.js", "￮.js", "assets.js"):
        (build / name).write_text("1")
    order = ["B.js", "a.js", "assets.js", "assets/app.js", "index.html"]
    assert names(build) == [*order, "é.js", "￮.js", "\U0001f600.js"]


def test_a_link_to_a_file_of_the_build_is_taken(build):
    (build / "copy.js").symlink_to("assets/app.js")
    assert "copy.js" in names(build)


def test_a_link_to_a_directory_is_refused(build):
    """Else what is in it would be missing on devices, and nobody told of it."""
    (build / "more").symlink_to("assets")
    refused(build, "'more' is a link to a directory")


@pytest.mark.parametrize("target", ["../outside.js", "/etc/hostname", "../missing"])
def test_a_link_that_leaves_the_build_is_refused(build, target):
    (build.parent / "outside.js").write_text("1")
    (build / "assets/link.js").symlink_to(f"../{target}" if target.startswith("..") else target)
    refused(build, "'assets/link.js' leaves the build directory")


def test_a_link_to_nothing_and_a_pipe_are_refused(build):
    (build / "gone.js").symlink_to("nothing.js")
    refused(build, "'gone.js' cannot be read")
    (build / "gone.js").unlink()
    os.mkfifo(build / "pipe.js")
    refused(build, "'pipe.js' is not a regular file")


@pytest.mark.parametrize("character", [*'\\:*?"<>|', "\n", "\t", "\x01", "\x7f"])
def test_a_character_that_devices_cannot_hold_is_refused(build, character):
    (build / f"a{character}b.js").write_text("1")
    refused(build, "has a character that a zip for devices cannot hold")


def test_a_name_is_utf8(build):
    with open(os.fsencode(build) + b"/a\xffb.js", "wb"):
        pass
    refused(build, "is not a UTF-8 name")


def test_a_name_has_a_bounded_length(build):
    folder = build
    for _ in range(5):
        folder /= "d" * 200
    folder.mkdir(parents=True)
    room = 1024 - len("d" * 200 + "/") * 5
    (folder / ("x" * room)).write_text("1")
    assert max(len(name) for name in names(build)) == 1024
    (folder / ("x" * (room + 1))).write_text("1")
    refused(build, "longer than 1,024 bytes")


def test_one_name_in_two_unicode_forms_is_refused(build):
    """They are two files here, and one on a device."""
    (build / "\u00e9.js").write_text("1")
    (build / "e\u0301.js").write_text("2")
    refused(build, "is there twice, in two Unicode forms")


def test_a_build_has_a_bounded_number_of_files_and_bytes(build, monkeypatch):
    monkeypatch.setattr(tree, "MAX_FILES", 2)
    assert len(names(build)) == 2
    monkeypatch.setattr(tree, "MAX_FILES", 1)
    refused(build, "over 1 files")
    monkeypatch.setattr(tree, "MAX_FILES", 2)
    monkeypatch.setattr(tree, "MAX_TOTAL", 14)
    refused(build, "or 4 GB")


def test_a_manifest_of_before_and_what_finders_leave_behind_are_no_files_of_the_build(build):
    for name in (MANIFEST, f"assets/{MANIFEST}", ".DS_Store", "assets/.DS_Store"):
        (build / name).write_text("1")
    assert names(build) == ["assets/app.js", f"assets/{MANIFEST}", "index.html"]


def grown(path):
    path.write_text("12")


def touched(path):
    os.utime(path, (1, 1))


def replaced(path):
    status = path.stat()
    (path.parent / "new").write_text("2")
    (path.parent / "new").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("how", [grown, touched, replaced])
def test_a_file_that_changed_since_it_was_found_is_not_bundled(build, monkeypatch, how):
    def later(root, **options):
        found = scan(root, **options)
        how(build / "assets/app.js")
        return found

    scan = tree.scan
    monkeypatch.setattr(bundle, "scan", later)
    target = build.parent / "bundle.zip"
    with pytest.raises(BuildError, match="changed while it was being read"):
        bundle.write_bundle(build, target)
    assert [path.name for path in build.parent.iterdir()] == ["www"]
