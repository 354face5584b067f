"""What a native project says of its store binary."""

import contextlib
import json
import plistlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privyseal.errors import ClientError
from privyseal.native_project import key_sha256, read_project
from privyseal.script_literals import Computed, literal, object_with, without_comments

PEM = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
"""


def test_projects_of_each_kind_are_read(tmp_path):
    capgo = tmp_path / "capgo"
    (capgo / "android/app").mkdir(parents=True)
    escaped = json.dumps(PEM)
    (capgo / "capacitor.config.json").write_text(
        f'{{"plugins": {{"CapacitorUpdater": {{"publicKey": {escaped}}}}}}}'
    )
    (capgo / "android/app/build.gradle.kts").write_text('versionCode = 7\nversionName = "0.7.0"\n')
    (found,) = read_project(capgo)
    assert (found.plugin, found.version_name, found.version_code) == ("capgo", "0.7.0", "7")
    digest = key_sha256(found.public_keys[0])

    codepush = tmp_path / "codepush"
    strings = codepush / "android/app/src/main/res/values/strings.xml"
    strings.parent.mkdir(parents=True)
    strings.write_text(f'<resources><string name="CodePushPublicKey">{PEM}</string></resources>')
    (codepush / "android/app/build.gradle").write_text("versionName '1.0'\nversionCode 3\n")
    plist = codepush / "ios/Shop/Info.plist"
    plist.parent.mkdir(parents=True)
    plist.write_bytes(
        plistlib.dumps(
            {
                "CFBundleShortVersionString": "1.0",
                "CFBundleVersion": "4",
                "CodePushPublicKey": PEM.replace("\n", ""),
            }
        )
    )
    android, ios = read_project(codepush)
    assert (android.plugin, ios.plugin) == ("codepush", "codepush")
    assert (ios.version_name, ios.version_code) == ("1.0", "4")
    assert key_sha256(android.public_keys[0]) == key_sha256(ios.public_keys[0]) == digest

    cordova = tmp_path / "cordova"
    cordova.mkdir()
    (cordova / "config.xml").write_text(
        '<?xml version="1.0"?><!-- <widget version="9"> -->'
        '<widget id="x" version="3.1.0" android-versionCode="31" ios-CFBundleVersion="3.1">'
        '<platform name="android"/><plugin name="cordova-plugin-ionic"/></widget>'
    )
    (found,) = read_project(cordova)
    assert (found.platform, found.plugin, found.version_code) == ("android", "ionic", "31")


def test_what_a_project_says_twice_is_asked_for(tmp_path):
    (tmp_path / "android/app").mkdir(parents=True)
    gradle = tmp_path / "android/app/build.gradle"
    gradle.write_text('versionCode 7\nversionName "1.0"\n')
    (tmp_path / "capacitor.config.ts").write_text(
        "plugins: { LiveUpdate: { publicKey: 'A', ...(process.env.CI ? {publicKey: K} : {}) } }"
    )
    (found,) = read_project(tmp_path)
    assert set(found.unread) == {"public_keys"}
    gradle.write_text(
        'versionCode 7\nversionName "1.0"\nflavor { versionCode 8\nversionName "1.0" }'
    )
    (found,) = read_project(tmp_path)
    assert set(found.unread) == {"public_keys", "version_code"}
    assert (found.version_name, found.version_code) == ("1.0", "")


def test_what_a_project_does_not_say_is_asked_for(tmp_path):
    with pytest.raises(ClientError, match="neither android nor ios"):
        read_project(tmp_path)
    (tmp_path / "android/app").mkdir(parents=True)
    (tmp_path / "capacitor.config.ts").write_text(
        "plugins: { LiveUpdate: { publicKey: readFileSync('key.pem') } }"
    )
    (found,) = read_project(tmp_path)
    assert found.public_keys == ()
    assert "--public-key" in found.unread["public_keys"]
    (tmp_path / "capacitor.config.ts").unlink()
    (tmp_path / "capacitor.config.json").write_text("{")
    with pytest.raises(ClientError, match="is no JSON"):
        read_project(tmp_path)
    for text in ("", "abc", PEM.replace("MFkw", "AAAA"), "-----BEGIN X-----\n-----END X-----"):
        with pytest.raises(ClientError, match="no public key"):
            key_sha256(text)


EXPO = {
    "expo": {
        "version": "1.2.0",
        "android": {"versionCode": 7},
        "ios": {"buildNumber": "7.1"},
        "updates": {"codeSigningCertificate": "./certs/certificate.pem"},
    }
}
SAYS_ALL = """
// version: "0.0.1"
const theme = {version: "9.9.9", colors: ["a}", 'b{']};
export default ({ config }: Ctx): ExpoConfig => ({
  ...config,
  name: 'Shop', slug: "shop",
  version: "1.3.0", /* android: {versionCode: 1} */
  plugins: [["expo-build", {android: {versionCode: 99}, version: "8"}]],
  android: { ...config.android, versionCode: 12, },
  "ios": { buildNumber: `12.1` },
});
"""


@pytest.fixture
def expo(tmp_path):
    (tmp_path / "app.json").write_text(json.dumps(EXPO))
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/certificate.pem").write_text(PEM)
    return tmp_path


def told(root):
    android, ios = read_project(root)
    assert android.version_name == ios.version_name
    return android.version_name, android.version_code, ios.version_code


def test_expo_says_it_in_a_file(expo):
    assert told(expo) == ("1.2.0", "7", "7.1")
    for each in read_project(expo):
        assert (each.plugin, each.public_keys, each.unread) == ("expo", (PEM,), {})


@pytest.mark.parametrize(
    ("runtime", "android", "ios"),
    [
        ("7", "7", "7"),
        ({"policy": "appVersion"}, "1.2.0", "1.2.0"),
        ({"policy": "nativeVersion"}, "1.2.0(7)", "1.2.0(7.1)"),
    ],
)
def test_expo_devices_go_by_their_runtime_version(expo, runtime, android, ios):
    project = {"expo": {**EXPO["expo"], "runtimeVersion": runtime}}
    (expo / "app.json").write_text(json.dumps(project))
    assert [each.version_name for each in read_project(expo)] == [android, ios]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "app.json",
            json.dumps({"expo": {**EXPO["expo"], "runtimeVersion": {"policy": "fingerprint"}}}),
        ),
        (
            "app.config.js",
            "export default ({config}) => ({...config, slug: 'x', runtimeVersion: v()})",
        ),
    ],
)
def test_a_runtime_version_that_is_not_written_is_asked_for(expo, file, text):
    (expo / file).write_text(text)
    for each in read_project(expo):
        assert each.version_name == ""
        assert "--version-name" in each.unread["version_name"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (SAYS_ALL, ("1.3.0", "12", "12.1")),
        ("module.exports = {expo: {version: '2', ios: {}}}", ("2", "7", "7.1")),
        ("module.exports = ({config}) => ({...config, slug: 'x'})", ("1.2.0", "7", "7.1")),
        ("module.exports = ({config}) => config", ("1.2.0", "7", "7.1")),
    ],
)
def test_a_script_of_expo_says_it_over_the_file(expo, script, says):
    (expo / "app.config.js").write_text(script)
    assert told(expo) == says
    assert not any(each.unread for each in read_project(expo))


@pytest.mark.parametrize(
    ("script", "android", "ios"),
    [
        ("export default {slug: 'x', version: pkg.version}", {"version_name"}, {"version_name"}),
        ("export default {slug: 'x', version}", {"version_name"}, {"version_name"}),
        ("export default {version: `1.${minor}`}", {"version_name"}, {"version_name"}),
        ("export default {slug: 'x', version: '1', ...config}", {"version_name"}, {"version_name"}),
        ("export default {version: '1' + x}", {"version_name"}, {"version_name"}),
        ("export default {android: {versionCode: n()}}", {"version_code"}, set()),
        ("export default {ios: platform.ios, x: {buildNumber}}", set(), {"version_code"}),
        (
            "export default ({config}) => { config.ios.buildNumber = n; return config }",
            set(),
            {"version_code"},
        ),
        (
            "export default {updates: {codeSigningCertificate: x}}",
            {"public_keys"},
            {"public_keys"},
        ),
        (
            "export default {updates: {codeSigningCertificate: './no.pem'}}",
            {"public_keys"},
            {"public_keys"},
        ),
    ],
)
def test_what_a_script_computes_is_asked_for_and_not_guessed(expo, script, android, ios):
    (expo / "app.config.ts").write_text(script)
    found = read_project(expo)
    assert [set(each.unread) for each in found] == [android, ios]
    for each in found:
        for attribute, why in each.unread.items():
            assert not getattr(each, attribute)
            assert "--" in why


@given(st.text(alphabet="{}[](),:'\"`$\\/* \nversionandroidslug.=01", max_size=400))
def test_any_script_is_read_without_an_error(text):
    made = object_with(without_comments(text), {"version", "android", "slug"})
    for source in (made or {}).values():
        with contextlib.suppress(Computed):
            assert isinstance(literal(source), str)
