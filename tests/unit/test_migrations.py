"""A database that was migrated has the tables that the code expects."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from privyseal.verify.note import Checkpoint
from privyseald.adapters.schema import metadata
from privyseald.adapters.sql_engine import make_engine, migrate


def test_migrations_and_schema_agree(tmp_path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url, Checkpoint.text, "test")

    engine = make_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_migrated_database_is_left_as_it_is(tmp_path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url, Checkpoint.text, "test")
    before = (tmp_path / "test.db").read_bytes()
    migrate(url, lambda _: "another note", "test")

    assert (tmp_path / "test.db").read_bytes() == before


def test_keys_of_before_certificates_can_be_read_and_changed(tmp_path):
    from importlib.resources import files

    from alembic import command
    from alembic.config import Config
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from privyseal.verify.keys import spki_der
    from privyseald.adapters.repositories import Db
    from privyseald.adapters.sql_transaction import SqlView
    from privyseald.rpc import convert
    from sqlalchemy import text

    url = f"sqlite:///{tmp_path / 'test.db'}"
    engine = make_engine(url)
    config = Config()
    config.set_main_option("script_location", str(files("privyseald.adapters") / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.execute(
            text("insert into keys values ('a', 'statement-v1', 'statement-v1', 1, 7, 0)")
        )
        connection.execute(
            text(
                "insert into key_versions (app, key, version, scheme, algorithm, state, "
                "public_key, public_key_sha256, blob, created_at) values ('a', 'statement-v1', 1, "
                "'statement-v1', 'ed25519', 'active', :spki, x'02', x'03', 7)"
            ),
            {"spki": spki_der(Ed25519PrivateKey.generate().public_key())},
        )
    migrate(url, Checkpoint.text, "test")
    with engine.begin() as connection:
        keys = SqlView(Db(connection)).keys
        (key,) = keys.list("a")
        assert key.versions[0].certificate == b""
        assert key.versions[0].anchor_sha256 == b""
        assert keys.chained() == []
        assert convert.key_version(key.versions[0]).name.endswith("/versions/1")
    engine.dispose()


def test_a_database_of_the_first_release_keeps_its_grants(tmp_path):
    from importlib.resources import files

    from alembic import command
    from alembic.config import Config
    from privyseald.adapters.repositories import Db
    from privyseald.adapters.sql_transaction import SqlView
    from privyseald.model.policy import Grant, Role
    from sqlalchemy import text

    url = f"sqlite:///{tmp_path / 'test.db'}"
    engine = make_engine(url)
    config = Config()
    config.set_main_option("script_location", str(files("privyseald.adapters") / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("insert into grants values ('g', 'token:t', 'signer', 'a', 7)"))
    migrate(url, Checkpoint.text, "test")
    with engine.connect() as connection:
        grants = SqlView(Db(connection)).grants.list()
    assert grants == [Grant("g", "token:t", Role.SIGNER, "a", 7)]
    engine.dispose()
