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
