"""CI systems, imitated: an issuer of identity tokens with TLS, and what each puts into a job.

The claims are those that each system documents, with its defaults. Tokens are signed with
real keys, and the daemon fetches the public ones over real TLS.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import ssl
import stat
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from privyseald.adapters import pki

ORG, REPO = "123456", "456789"
SHA = "a" * 40
UUID = "5f3c1e0a-1111-4222-8333-444455556666"


def github(audience: str) -> dict:
    return {
        "sub": f"repo:octo-org@{ORG}/octo-repo@{REPO}:ref:refs/heads/main",
        "aud": audience,
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "ref_protected": "true",
        "sha": SHA,
        "repository": "octo-org/octo-repo",
        "repository_id": REPO,
        "repository_owner": "octo-org",
        "repository_owner_id": ORG,
        "repository_visibility": "private",
        "run_id": "30433642",
        "run_number": "10",
        "run_attempt": "2",
        "actor": "octocat",
        "actor_id": "12",
        "workflow": "release",
        "workflow_ref": "octo-org/octo-repo/.github/workflows/release.yml@refs/heads/main",
        "workflow_sha": SHA,
        "job_workflow_ref": "octo-org/octo-repo/.github/workflows/release.yml@refs/heads/main",
        "job_workflow_sha": SHA,
        "head_ref": "",
        "base_ref": "",
        "event_name": "push",
        "runner_environment": "github-hosted",
        "jti": str(uuid.uuid4()),
        "nbf": int(time.time()) - 600,
        "exp": int(time.time()) + 300,
        "iat": int(time.time()),
    }


def gitlab(audience: str) -> dict:
    return {
        "namespace_id": "72",
        "namespace_path": "my-group",
        "project_id": "20",
        "project_path": "my-group/my-project",
        "user_id": "1",
        "user_login": "sample-user",
        "user_email": "sample@example.com",
        "pipeline_id": "574",
        "pipeline_source": "push",
        "job_id": "302",
        "ref": "main",
        "ref_type": "branch",
        "ref_path": "refs/heads/main",
        "ref_protected": "true",
        "groups_direct": ["my-group"],
        "environment": "production",
        "environment_protected": "true",
        "runner_id": 1,
        "runner_environment": "gitlab-hosted",
        "sha": SHA,
        "project_visibility": "private",
        "ci_config_ref_uri": "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
        "ci_config_sha": SHA,
        "jti": str(uuid.uuid4()),
        "iat": int(time.time()),
        "nbf": int(time.time()) - 5,
        "exp": int(time.time()) + 3600,
        "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
        "aud": audience,
    }


def buildkite(audience: str) -> dict:
    return {
        "sub": "organization:acme-inc:pipeline:super-app:ref:refs/heads/main:"
        f"commit:{SHA}:step:build",
        "aud": audience,
        "iat": int(time.time()),
        "nbf": int(time.time()),
        "exp": int(time.time()) + 300,
        "organization_slug": "acme-inc",
        "pipeline_slug": "super-app",
        "build_number": 1,
        "build_branch": "main",
        "build_tag": None,
        "build_commit": SHA,
        "step_key": None,
        "job_id": UUID,
        "agent_id": UUID,
        "build_source": "webhook",
        "runner_environment": "self-hosted",
    }


def circleci(audience: str) -> dict:
    organization = CIRCLE_ISSUER.rpartition("/")[2]
    return {
        "aud": audience,
        "exp": int(time.time()) + 3600,
        "iat": int(time.time()),
        "oidc.circleci.com/project-id": UUID,
        "oidc.circleci.com/context-ids": [],
        "oidc.circleci.com/ssh-rerun": False,
        "oidc.circleci.com/vcs-origin": "github.com/octo-org/octo-repo",
        "oidc.circleci.com/vcs-ref": "refs/heads/main",
        "oidc.circleci.com/job-id": UUID,
        "sub": f"org/{organization}/project/{UUID}/user/{UUID}/vcs-origin/"
        "github.com/octo-org/octo-repo/vcs-ref/refs/heads/main",
    }


def bitbucket(audience: str) -> dict:
    return {
        "sub": f"{{{UUID}}}:{{{uuid.uuid4()}}}",
        "aud": audience,
        "stepUuid": f"{{{uuid.uuid4()}}}",
        "repositoryUuid": f"{{{UUID}}}",
        "workspaceUuid": f"{{{UUID}}}",
        "pipelineUuid": f"{{{uuid.uuid4()}}}",
        "branchName": "main",
        "iat": int(time.time()),
        "exp": int(time.time()) + 3600,
    }


def azure(audience: str) -> dict:
    return {
        "jti": str(uuid.uuid4()),
        "sub": "sc://my-org/my-project/my-connection",
        "aud": audience,
        "nbf": int(time.time()) - 60,
        "iat": int(time.time()),
        "exp": int(time.time()) + 600,
    }


def kubernetes(audience: str) -> dict:
    return {
        "aud": [audience],
        "exp": int(time.time()) + 3607,
        "iat": int(time.time()),
        "nbf": int(time.time()),
        "jti": str(uuid.uuid4()),
        "kubernetes.io": {
            "namespace": "ci",
            "node": {"name": "node-1", "uid": UUID},
            "pod": {"name": "build-1", "uid": UUID},
            "serviceaccount": {"name": "builder", "uid": UUID},
        },
        "sub": "system:serviceaccount:ci:builder",
    }


def generic(audience: str) -> dict:
    return {
        "aud": audience,
        "sub": "build@example.com",
        "project": "p-17",
        "git_ref": "refs/heads/main",
        "iat": int(time.time()),
        "exp": int(time.time()) + 300,
    }


CIRCLE_ISSUER = "https://oidc.circleci.com/org/0c6f1b9e-aaaa-4bbb-8ccc-ddddeeeeffff"


@dataclass
class System:
    """A CI system: its issuer, its claims, and what grants name its workload by."""

    provider: str
    url: str
    claims: object
    anchor: str
    alg: str = "RS256"
    organizations: tuple[str, ...] = ()
    audience: str = ""
    extra: dict = field(default_factory=dict)
    name: str = ""

    @property
    def issuer(self) -> str:
        return self.name or self.provider

    @property
    def principal(self) -> str:
        return f"workload:{self.issuer}:{self.anchor}"


SYSTEMS = {
    system.issuer: system
    for system in (
        System(
            "github",
            "https://token.actions.githubusercontent.com",
            github,
            REPO,
            organizations=(ORG,),
        ),
        System(
            "github",
            "https://github.corp.example/_services/token",
            github,
            REPO,
            name="github-enterprise",
        ),
        System(
            "github",
            "https://token.actions.octocorp.ghe.com",
            github,
            REPO,
            name="github-residency",
        ),
        System("gitlab", "https://gitlab.com", gitlab, "20", organizations=("72",)),
        System("gitlab", "https://gitlab.corp.example", gitlab, "20", name="gitlab-own"),
        System("buildkite", "https://agent.buildkite.com", buildkite, UUID, organizations=(UUID,)),
        System("circleci", CIRCLE_ISSUER, circleci, UUID),
        System(
            "bitbucket",
            "https://api.bitbucket.org/2.0/workspaces/my-ws/pipelines-config/identity/oidc",
            bitbucket,
            UUID,
        ),
        System(
            "azure-devops",
            f"https://vstoken.dev.azure.com/{UUID}",
            azure,
            "my-org/my-project/my-connection",
            audience="api://AzureADTokenExchange",
        ),
        System("kubernetes", "https://kubernetes.default.svc", kubernetes, UUID, alg="ES256"),
        System(
            "oidc",
            "https://id.corp.example",
            generic,
            "p-17",
            alg="EdDSA",
            extra={"claims": {"repository_id": "project", "ref": "git_ref"}},
        ),
    )
}


class Issuer:
    """Signs tokens, serves keys, and answers as CI systems' token endpoints do."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        pki.create_ca(folder)
        self.ca = folder / "ca.pem"
        certificate, key = pki.issue(
            folder, common_name="issuer", hosts=["localhost", "127.0.0.1"], days=2
        )
        (folder / "pair.pem").write_bytes(key + certificate)
        self.keys = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.fetches = 0
        self.jwks_body: bytes | None = None
        self.delay = 0.0
        self.requests: list[dict] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                issuer._answer(self)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                issuer._answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "pair.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def jwks(self) -> dict:
        makers = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        keys = []
        for alg, key in self.keys.items():
            public = json.loads(makers[alg].to_jwk(key.public_key()))
            keys.append({**public, "kid": alg, "use": "sig", "alg": alg})
        return {"keys": keys}

    def settings(self, *names: str) -> str:
        """Return the daemon's settings for some systems."""
        text = ""
        for name in names or SYSTEMS:
            system = SYSTEMS[name]
            lines = {
                "name": name,
                "provider": system.provider,
                "url": system.url,
                "jwks_uri": f"{self.url}/{name}/jwks",
                "ca_file": str(self.ca),
            }
            if system.organizations:
                lines["organizations"] = list(system.organizations)
            if system.audience:
                lines["audience"] = system.audience
            text += "\n[[issuers]]\n"
            text += "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items())
            if claims := system.extra.get("claims"):
                pairs = ", ".join(f'{k} = "{v}"' for k, v in claims.items())
                text += f"claims = {{ {pairs} }}\n"
        return text

    def token(self, name: str, audience: str, *, header: dict | None = None, **changed) -> str:
        """Return a token of a system, with some claims changed; None removes one."""
        system = SYSTEMS[name]
        claims = {"iss": system.url, **system.claims(system.audience or audience), **changed}
        if system.provider == "buildkite":
            claims = {"organization_id": UUID, "pipeline_id": UUID, **claims}
        claims = {k: v for k, v in claims.items() if v is not None or k == "build_tag"}
        return self.sign(claims, system.alg, header)

    def sign(self, claims: dict, alg: str = "RS256", header: dict | None = None) -> str:
        headers = {"kid": alg, **(header or {})}
        named = {k: v for k, v in headers.items() if v is not None}
        return jwt.encode(claims, self.keys[alg], alg, headers=named)

    def job(self, name: str, audience: str, folder: Path) -> dict[str, str]:
        """Return the environment of a job, with the programs that a runner offers."""
        system = SYSTEMS[name]
        fake = {"SSL_CERT_FILE": str(self.ca)}
        if system.provider == "github":
            url = f"{self.url}/{name}/token?api-version=2.0"
            return {
                **fake,
                "GITHUB_ACTIONS": "true",
                "ACTIONS_ID_TOKEN_REQUEST_URL": url,
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-token",
            }
        if system.provider == "azure-devops":
            return {
                "TF_BUILD": "True",
                **fake,
                "SYSTEM_OIDCREQUESTURI": f"{self.url}/{name}/oidctoken",
                "SYSTEM_ACCESSTOKEN": "runner-token",
                "PRIVYSEAL_SERVICE_CONNECTION_ID": UUID,
            }
        token = self.token(name, audience)
        if system.provider == "gitlab":
            return {"GITLAB_CI": "true", "PRIVYSEAL_ID_TOKEN": token}
        if system.provider == "bitbucket":
            return {"BITBUCKET_BUILD_NUMBER": "1", "BITBUCKET_STEP_OIDC_TOKEN": token}
        if system.provider == "buildkite":
            path = self._program(folder, "buildkite-agent", name)
            return {
                "BUILDKITE": "true",
                "BUILDKITE_AGENT_ACCESS_TOKEN": "runner-token",
                "PATH": path,
            }
        if system.provider == "circleci":
            path = self._program(folder, "circleci", name)
            return {"CIRCLECI": "true", "CIRCLE_OIDC_TOKEN_V2": "unused", "PATH": path}
        file = folder / "token"
        file.write_text(token + "\n")
        return {"PRIVYSEAL_ID_TOKEN_FILE": str(file)}

    def _program(self, folder: Path, program: str, name: str) -> str:
        """Write a runner's program: it gets its token from here, with its own arguments."""
        path = folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "#!/bin/sh\n"
            f"exec curl -sS --fail --cacert {self.ca} -G {self.url}/{name}/program "
            '$(for a in "$@"; do printf " --data-urlencode arg=%s" "$(printf %s "$a" | '
            "tr -d ' ')\"; done)\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return f"{path.parent}:/usr/local/bin:/usr/bin:/bin"

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(to.path)
        _, name, what = parts.path.split("/", 2)
        query = parse_qs(parts.query)
        if what == "jwks":
            self.fetches += 1
            time.sleep(self.delay)
            body = self.jwks_body or json.dumps(self.jwks()).encode()
        elif what == "program":
            body = self._from_program(name, query["arg"])
        elif what == "elsewhere":
            to.send_response(302)
            to.send_header("Location", f"{self.url}/{name}/token?{parts.query}")
            to.end_headers()
            return
        elif to.headers.get("Authorization") != "Bearer runner-token":
            to.send_error(401)
            return
        elif what == "token":
            body = json.dumps({"value": self.token(name, query["audience"][0])}).encode()
        else:
            assert query["serviceConnectionId"] == [UUID]
            body = json.dumps({"oidcToken": self.token(name, "")}).encode()
        to.send_response(200)
        to.send_header("Content-Type", "application/json")
        to.send_header("Content-Length", str(len(body)))
        if body.startswith(gzip.compress(b"")[:3]):
            to.send_header("Content-Encoding", "gzip")
        to.end_headers()
        with contextlib.suppress(OSError):  # the reader may have had enough
            to.wfile.write(body)

    def _from_program(self, name: str, arguments: list[str]) -> bytes:
        if name == "circleci":
            assert arguments[:4] == ["run", "oidc", "get", "--claims"]
            return self.token(name, json.loads(arguments[4])["aud"]).encode()
        assert arguments[:2] == ["oidc", "request-token"]
        options = list(zip(arguments[2::2], arguments[3::2], strict=True))
        assert ("--claim", "pipeline_id") in options
        return self.token(name, dict(options)["--audience"]).encode()
