"""The schema from outside: other languages, other roles, psql, other versions and other schemas beside it, and what Postgres plans."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).parent))
import postgres_server
from postgres_server import conninfo, look, new_thread, stores

from ownloop import App, Intent, Thread
from ownloop.engines.embedded import Embedded
from ownloop.errors import StoreError
from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.postgres import PostgresStore, connect
from ownloop.stores.urls import masked, open_store
from ownloop.testing.store_scene import TTL, Scene

# ---- passwords -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@h/d?schema=x",
        "postgresql://ann:p@s3cret@h/d",
        "postgresql://ann:p#s3cret@h/d",
        "postgresql://ann:p/s3cret@h/d",
        "postgresql://ann:s3cret?@h/d",
        "postgresql://ann:s3cret@[::1/d",
        "postgresql://ann:s3cret@h:port/d",
        "postgresql://h/d?user=ann&password=s3cret&sslpassword=s3cret",
        "postgresql://ann:s3cret@h/d?nonsense=1",
        "postgresql://ann:s3cret@h/d?schema=NO",
        "postgresql://ann:s3cret@h1:1,h2:2/d?application_name=x@y",
        "postgresql:ann:s3cret@h/d",
        "mysql://ann:s3cret@h/d",
        "ann:s3cret@h/d",
    ],
)
def test_no_password_is_ever_shown(url: str) -> None:
    said = masked(url)
    try:
        store = PostgresStore(url) if url.startswith("postgresql:/") else open_store(url, None)
    except ValueError as error:
        said += str(error)
    else:
        assert isinstance(store, PostgresStore)
        said += f"{store.url} {store.place!r} {store.place.name}"
    assert "s3cret" not in said


def test_a_url_of_a_socket_and_options_reach_the_server_as_they_are_meant() -> None:
    place = connect.parse("postgresql:///d?host=/tmp/x&options=-c%20lock_timeout%3D200&schema=s")
    known = psycopg.conninfo.conninfo_to_dict(place.conninfo)
    assert (known["host"], known["dbname"], known["options"]) == ("/tmp/x", "d", "-c lock_timeout=200")


CREATE = """SELECT ownloop.append('{"do": "create", "agent": "a", "thread": 1, "drafts": [{"kind": "input", "data": "%s"}]}')"""


# ---- the doors -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("SELECT ownloop.start('bot', '1', NULL, '[1]')", "a context is a JSON object"),
        ("SELECT ownloop.start(NULL)", "null value"),
        ("SELECT ownloop.send('thr_0000000000001', NULL)", "a message has a text"),
        ("SELECT ownloop.emit('paid', NULL)", "an event carries something"),
        ("SELECT ownloop.emit('paid', 'null')", "an event carries something"),
        ('SELECT ownloop.append(\'{"do": "nonsense"}\')', 'no "do" called nonsense\n(?s:.*)begin, fact, message'),
        ("SELECT ownloop.append('[]')", 'no "do" called null'),
        (CREATE % "no", "json"),
        (CREATE % "[]", "JSON object"),
    ],
)
def test_what_could_not_be_read_again_is_refused(url: str, harm: str, said: str) -> None:
    with pytest.raises(psycopg.Error, match=said):
        look(url, harm)
    assert look(url, "SELECT count(*) FROM ownloop.threads") == [(0,)]


@pytest.mark.parametrize("odd", ["a\x00b", "x\ud800y", "k" * 200 + os.urandom(4000).hex()], ids=["nul", "half", "long"])
async def test_a_name_that_postgres_cannot_hold_is_a_clear_error_and_data_that_it_cannot_hold_are_kept(store: PostgresStore, odd: str) -> None:
    thread = await new_thread(store)
    await store.message(thread, [Draft("message", {"text": odd, odd: [odd]})])
    assert (await store.events(thread))[1].data == {"text": odd, odd: [odd]}
    for call in (store.emit(odd, odd, odd, 1), store.put("s", odd, 1), store.message(thread, [Draft("message", {"text": "x"})], dedupe=odd)):
        with pytest.raises(StoreError, match="a name, key or id|A name, key or id"):
            await call
    assert await store.emit("fine", None, None, odd) and len(await store.events(thread)) == 2
    assert await store.check() == []


async def test_the_sql_that_the_page_shows_is_one_transaction_and_its_thread_runs(url: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    begin, *statements, commit, _ = re.split(r";(?: *--[^\n]*)?\n", page.split("```sql\n")[1].split("```")[0])
    place = connect.parse(url)
    assert (begin, commit) == ("BEGIN", "COMMIT")
    with psycopg.connect(place.conninfo) as db:
        db.execute("CREATE TEMPORARY TABLE orders (number text PRIMARY KEY)")
        db.commit()
        for end in (db.rollback, db.commit):
            said = [db.execute(place.sql(one).encode()) for one in statements]
            end()
            assert db.execute("SELECT count(*) FROM orders").fetchone() == (int(end == db.commit),)
    assert [one.fetchone()[0] for one in said[2:4]] == [2, True]  # type: ignore[index]
    seen: list[Any] = []

    async def shipping(thread: Thread) -> None:
        seen.append((thread.input, thread.key, thread.context, [event.data["text"] for event in thread.unread]))

    app = App(PostgresStore(url), engine=Embedded())
    app.add(shipping)
    async with app:
        while not seen:
            await asyncio.sleep(0.01)
    assert seen == [("A-1", "A-1", {"tenant": "acme"}, ["by noon, please", "or by one"])]
    assert look(url, "SELECT (SELECT count(*) FROM ownloop.threads), (SELECT count(*) FROM ownloop.mail)") == [(1, 1)]


# ---- the caller's transaction -----------------------------------------------------------------------------------------------------


def engine_url(url: str, driver: str) -> str:
    options = psycopg.conninfo.conninfo_to_dict(conninfo(url))
    return f"postgresql+{driver}://{options['user']}@/{options['dbname']}?host={options['host']}"


async def test_a_transaction_stands_for_its_connection(store: PostgresStore, url: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo(url), autocommit=True) as db, db.transaction() as tx:
        assert await store.within(tx).emit("a", None, None, 1)
    with psycopg.connect(conninfo(url), autocommit=True) as plain, plain.transaction() as own:
        assert await store.within(own).emit("b", None, None, 1)
    engine = sqlalchemy.create_engine(engine_url(url, "psycopg"))
    with Session(engine) as session, session.begin() as began:
        assert await store.within(began).emit("c", None, None, 1)
    later = sqlalchemy.ext.asyncio.create_async_engine(engine_url(url, "asyncpg"))
    async with sqlalchemy.ext.asyncio.async_sessionmaker(later)() as session, session.begin() as begun:
        assert await store.within(begun).emit("d", None, None, 1)
    async with later.connect() as connection, connection.begin() as inner:
        assert await store.within(inner).emit("e", None, None, 1)
    options = psycopg.conninfo.conninfo_to_dict(conninfo(url))
    async with asyncpg.create_pool(host=options["host"], user=options["user"], database=options["dbname"], min_size=1) as pool:
        async with pool.acquire() as lent, lent.transaction():
            assert await store.within(lent).emit("f", None, None, 1)
        with pytest.raises(TypeError, match="no connection that ownloop knows"):
            store.within(pool)
    assert look(url, "SELECT string_agg(name, '' ORDER BY name) FROM ownloop.mail") == [("abcdef",)]
    for wrong in (engine, later, sqlalchemy.orm.sessionmaker(engine)):
        with pytest.raises(TypeError, match="no connection that ownloop knows"):
            store.within(wrong)
    await later.dispose()
    engine.dispose()


async def test_what_would_be_committed_at_once_or_elsewhere_is_refused(store: PostgresStore, url: str) -> None:
    for driver in ("psycopg", "asyncpg"):
        engine = sqlalchemy.ext.asyncio.create_async_engine(engine_url(url, driver), isolation_level="AUTOCOMMIT")
        async with sqlalchemy.ext.asyncio.AsyncSession(engine) as session, session.begin():
            with pytest.raises(ValueError, match="in no transaction"):
                await store.within(session).emit("x", None, None, 1)
        await engine.dispose()
    plain = sqlalchemy.create_engine(engine_url(url, "psycopg"), isolation_level="AUTOCOMMIT")
    with plain.begin() as tx, pytest.raises(ValueError, match="in no transaction"):
        await store.within(tx).emit("x", None, None, 1)
    plain.dispose()
    elsewhere = sqlalchemy.create_engine("sqlite://")
    with Session(elsewhere) as session, session.begin(), pytest.raises(TypeError, match="on sqlite"):
        await store.within(session).emit("x", None, None, 1)
    assert look(url, "SELECT count(*) FROM ownloop.mail") == [(0,)]


async def test_what_is_rolled_back_to_a_savepoint_is_gone_and_the_rest_stands(store: PostgresStore, url: str) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        first = await new_thread(store.within(tx))  # type: ignore[arg-type]  # a part of a store
        with pytest.raises(ZeroDivisionError):
            async with tx.transaction():
                second = await new_thread(store.within(tx))  # type: ignore[arg-type]
                raise ZeroDivisionError
    assert await store.thread(first) is not None and await store.thread(second) is None


# ---- roles -----------------------------------------------------------------------------------------------------------------------


class Deploy(Intent):
    tag: str


async def deploybot(thread: Thread) -> str:
    step = await thread.next_step(choose)
    if await step.approved(by="ops"):
        child = await step.spawn("helper", {"tag": "v1"})
        await step.sleep("0.05s")
        (outcome,) = await step.join(child)
        payload = await step.wait_for("paid", key="1")
        return f"{outcome.value} {payload}"
    return "no"


async def choose(thread: Thread) -> Deploy:
    return Deploy(tag="x" * 70_000)


async def helper(thread: Thread) -> str:
    return "helped"


async def test_a_worker_that_logs_in_with_the_least_rights_does_all_that_a_worker_does(url: str) -> None:
    place = connect.parse(url)
    role = f"worker_{place.schema}"
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        db.execute(connect.roles(place).encode())
        db.execute(f'DROP ROLE IF EXISTS "{role}"; CREATE ROLE "{role}" LOGIN IN ROLE {place.schema}_app'.encode())
    app = App(PostgresStore(url.replace("postgres:@", f"{role}@")), engine=Embedded())
    app.add(deploybot)
    app.add(helper)
    heard: list[str] = []
    app.on("thread.done")(lambda notice: _note(heard, notice))
    async with app:
        thread = await app.start(deploybot, "go", key="k", context={"tenant": "acme"})
        while not (found := await app.interrupts(thread=thread, kind="approval")):
            await asyncio.sleep(0.01)
        await app.approve(found[0], by="ops")
        await app.emit("paid", {"sum": 7}, key="1")
        while (await app.show(thread)).status != "done" or len(heard) < 2:
            await asyncio.sleep(0.01)
        assert (await app.show(thread)).result == "helped {'sum': 7}"
        assert await app.store.check() == []
        ((user, powerful),) = await app.store._rows("SELECT current_user::text, usesuper FROM pg_user WHERE usename = current_user")  # type: ignore[attr-defined]
        assert (user, powerful) == (role, False)
        await connect.prepare(place, (*connect.MIGRATIONS, ("CREATE TABLE ownloop.more (name text);",)))  # a newer program's owner migrates
        await app.send(thread, "again", by="ann")
        assert len(await app.store._rows("SELECT * FROM ownloop.more")) == 0  # type: ignore[attr-defined]
        assert await app.store.prune(app.store.clock.now().replace(year=2000)) == 0
    with psycopg.connect(conninfo(url.replace("postgres:@", f"{role}@")), autocommit=True) as db:
        for harm in ("INSERT INTO {}.threads (number) VALUES (1)", "TRUNCATE {}.events", "DROP TABLE {}.mail", "UPDATE {}.meta SET version = 1"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(harm.format(place.schema).encode())
    look(url, f"DROP TABLE ownloop.more; UPDATE ownloop.meta SET version = {len(connect.MIGRATIONS)}")


async def test_a_role_without_a_connection_for_renewals_takes_no_lease(url: str) -> None:
    """It would begin calls whose leases run out beneath them."""
    place = connect.parse(url)
    role = f"few_{place.schema}"
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        db.execute(connect.roles(place).encode())
        db.execute(f'DROP ROLE IF EXISTS "{role}"; CREATE ROLE "{role}" LOGIN CONNECTION LIMIT 1 IN ROLE {place.schema}_app'.encode())
        async with stores(url) as (own,), stores(url.replace("postgres:@", f"{role}@")) as (store,):
            thread = await new_thread(own)
            with pytest.raises(StoreError, match="no connection to renew leases with, so that no wake begins .*too many.* A process needs 13: raise"):
                await store.claim(thread, ["bot"], TTL)
            assert (await own.runnable(["bot"], 1))[0] == [thread]
            db.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT 2'.encode())
            claim = await store.claim(thread, ["bot"], TTL)
            assert claim is not None and (await asyncio.to_thread(store.renew, {thread: claim.row.epoch}, TTL))[thread] is not None


async def _note(heard: list[str], notice: Any) -> None:
    heard.append(notice.thread_id)


async def test_a_worker_must_not_find_its_functions_replaced_by_somebody_elses(url: str) -> None:
    """What a caller puts before pg_catalog in its own search_path is nothing to a function that runs as the owner."""
    with psycopg.connect(conninfo(url), autocommit=True) as db:
        db.execute("CREATE SCHEMA trap")
        try:
            harm = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$"
            db.execute(f"CREATE FUNCTION trap.jsonb_array_length(jsonb) RETURNS integer {harm}".encode())
            db.execute("SET search_path = trap, pg_catalog")
            place = connect.parse(url)
            call = {"do": "create", "agent": "a", "thread": 1, "drafts": [{"kind": "input", "data": "{}"}]}
            assert db.execute(place.sql("SELECT ownloop.append(%s::jsonb)").encode(), (json.dumps(call),)).fetchone() == ({"thread": 1, "new": True},)
            doors = """SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace AND prosecdef
                AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)"""
            assert db.execute(doors, (place.schema,)).fetchall() == []
        finally:
            db.execute("DROP SCHEMA trap CASCADE")


async def test_a_schema_that_the_administrator_made_is_filled_by_a_role_that_may_make_none() -> None:
    url = postgres_server.fresh_url()
    schema = connect.parse(url).schema
    with psycopg.connect(conninfo(url), autocommit=True) as db:
        db.execute(f'DROP ROLE IF EXISTS "o_{schema}"; CREATE ROLE "o_{schema}" LOGIN; CREATE SCHEMA "{schema}" AUTHORIZATION "o_{schema}"'.encode())
    async with stores(url.replace("postgres:@", f"o_{schema}@")) as (store,):
        assert await store.thread(await new_thread(store)) is not None


async def test_the_defaults_of_a_database_do_not_change_how_we_write(url: str) -> None:
    name = connect.parse(url).schema
    with psycopg.connect(conninfo(url), autocommit=True) as db:
        db.execute(f'DROP ROLE IF EXISTS "s_{name}"; CREATE ROLE "s_{name}" LOGIN SUPERUSER'.encode())
        db.execute(f"ALTER ROLE \"s_{name}\" SET default_transaction_isolation = 'serializable'".encode())
        db.execute(f'ALTER ROLE "s_{name}" SET search_path = nowhere'.encode())
        db.execute(f"ALTER ROLE \"s_{name}\" SET datestyle = 'German'".encode())
    async with stores(url.replace("postgres:@", f"s_{name}@")) as (store,):
        thread = await new_thread(store)
        assert await store.claim(thread, ["bot"], TTL) and await asyncio.to_thread(store.renew, {thread: 1}, TTL) != {thread: None}


async def test_a_database_of_another_encoding_is_refused() -> None:
    url = postgres_server.fresh_url()
    with psycopg.connect(conninfo(url), autocommit=True) as db:
        db.execute("DROP DATABASE IF EXISTS latin")
        db.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with pytest.raises(StoreError, match="LATIN1.*needs UTF8"):
            await PostgresStore(url.replace("/postgres?", "/latin?")).open()
    finally:
        with psycopg.connect(conninfo(url), autocommit=True) as db:
            db.execute("DROP DATABASE latin")


# ---- migrations ------------------------------------------------------------------------------------------------------------------

NEWEST = len(connect.MIGRATIONS)


def printed(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OWNLOOP_")}
    return subprocess.run([sys.executable, "-m", "ownloop", "migrate", *words], capture_output=True, text=True, env=environment, check=True).stdout


async def test_psql_runs_what_migrate_prints() -> None:
    url = postgres_server.fresh_url()
    psql = ("psql", conninfo(url).replace(" tcp_user_timeout=15000", ""), "-q", "-v", "ON_ERROR_STOP=1")
    own = PostgresStore(url)
    for script in (printed("--sql", "--store", url), own.roles(), f"BEGIN;{own.migration(NEWEST)};COMMIT;"):
        postgres_server.program(*psql, input=script)
    async with stores(url) as (store,):
        assert await store.check() == [] and await new_thread(store)
    postgres_server.program(*psql, input=printed("--sql", "--store", url))
    async with stores(url) as (store,):
        assert len(await store.threads()) == 1, "what there is stays when the script is run again"
    look(url, "UPDATE ownloop.meta SET version = 7")
    for since in (0, NEWEST):
        wrong = postgres_server.program(*psql, input=f"BEGIN;{own.migration(since)};COMMIT;", check=False)
        assert wrong.returncode and f"the schema has version 7, and this script begins at {NEWEST}; nothing was changed" in wrong.stderr
        assert "ownloop migrate --sql --since 7" in wrong.stderr
    look(url, f"UPDATE ownloop.meta SET version = {NEWEST}")


@pytest.mark.parametrize("since", [-1, 9])
def test_a_version_that_there_never_was_is_refused(since: int) -> None:
    with pytest.raises(ValueError, match=f"no schema has version {since}"):
        PostgresStore("postgresql://h/d").migration(since)


async def test_workers_go_on_while_a_newer_program_migrates_under_them(url: str) -> None:
    place = connect.parse(url)
    newer = (*connect.MIGRATIONS, ("ALTER TABLE ownloop.threads ADD COLUMN extra text;", "ALTER TABLE ownloop.events ADD COLUMN extra text;"))
    async with stores(url, 2) as made:
        threads = [await new_thread(made[0]) for _ in range(8)]
        stop = asyncio.Event()

        async def work(store: PostgresStore, thread: str) -> int:
            epoch = 0
            while not stop.is_set() or epoch < 20:
                claim = await store.claim(thread, ["bot"], TTL)
                assert claim is not None
                epoch = claim.row.epoch
                await store.begin(thread, epoch, [Draft("appended", {"name": "n"})], known=claim.row.head)
                assert len(await store.load(thread, claim.row.head + 1)) == claim.row.head + 1
                await store.release(thread, epoch, seen=0, due=None)
            return epoch

        tasks = [asyncio.ensure_future(work(made[number % 2], thread)) for number, thread in enumerate(threads)]
        await asyncio.sleep(0.3)
        assert await connect.prepare(place, newer) == NEWEST
        await asyncio.sleep(0.3)
        stop.set()
        epochs = await asyncio.gather(*tasks)
        for thread, epoch in zip(threads, epochs, strict=True):
            assert len(await made[0].events(thread)) == 1 + epoch
        assert await made[0].check() == []
    async with stores(url) as (old,):  # and an old program that comes now
        assert await old.claim(threads[0], ["bot"], TTL)
    look(url, "ALTER TABLE ownloop.threads DROP COLUMN extra; ALTER TABLE ownloop.events DROP COLUMN extra")
    look(url, f"UPDATE ownloop.meta SET version = {NEWEST}")


FIRST = """
ALTER TABLE ownloop.threads DROP COLUMN ready CASCADE, DROP COLUMN woken_at;
ALTER TABLE ownloop.threads ADD COLUMN ready bigint GENERATED ALWAYS AS (
    CASE WHEN status = 'open' THEN
        CASE WHEN lease_until IS NOT NULL THEN lease_until WHEN woken > seen THEN updated_at - 4611686018427387904 ELSE due END
    WHEN status = 'done' THEN due END) STORED;
CREATE INDEX threads_ready ON ownloop.threads (agent, ready) WHERE ready IS NOT NULL;
"""
OLD = """
CREATE OR REPLACE FUNCTION ownloop._messages(a jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION ownloop._message(a jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
UPDATE ownloop.meta SET version = 1
"""


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("made", [OLD, FIRST + OLD])
async def test_a_store_of_version_1_is_brought_on_with_the_threads_that_wait_in_it(made: str, by_hand: bool) -> None:
    """Functions that came with another program take other calls: opening the store replaces them, and so does what `migrate --sql` prints."""
    url = postgres_server.fresh_url()
    async with stores(url) as (store,):
        thread, request = await Scene(store, store.clock).parked()  # type: ignore[arg-type]  # it moves no clock
        others = [await new_thread(store) for _ in range(20)]
    look(url, made)
    if by_hand:
        with psycopg.connect(conninfo(url)) as db:
            db.execute(PostgresStore(url).migration(1).encode())
    async with asyncio.timeout(20), stores(url) as (store,):
        scene = Scene(store, store.clock)  # type: ignore[arg-type]  # it moves no clock
        await scene.decide(thread, request.seq)
        await asyncio.gather(*(store.message(one, [Draft("message", {"text": "x"})]) for one in others))
        for one in (thread, *others):
            await (await scene.wake(one)).release()
        assert (await store.runnable(["bot"], 50))[0] == [] and await store.check() == []
    same = "SELECT attname, pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    columns = f"{same} WHERE attrelid = to_regclass('ownloop' || '.threads') AND attnum > 0 AND NOT attisdropped ORDER BY attname"
    fresh = postgres_server.fresh_url()
    async with stores(fresh):
        assert look(url, columns) == look(fresh, columns)


async def test_two_schemas_of_one_database_know_nothing_of_each_other(url: str) -> None:
    async with stores(url) as (one,), stores(postgres_server.fresh_url()) as (other,):
        heard: list[object] = []
        other.listen(heard.append)
        while not heard:
            await asyncio.sleep(0.01)
        heard.clear()
        thread, _ = await Scene(one, one.clock).parked()  # type: ignore[arg-type]  # it moves no clock
        await one.emit("go", None, "id", 1)
        assert await other.thread(thread) is None and await other.threads() == [] and await other.interrupts() == []
        assert await other.emit("go", None, "id", 1)
        await asyncio.sleep(0.1)
        assert [one for one in heard if one is not None] == []


# ---- plans -----------------------------------------------------------------------------------------------------------------------

FILL = """
INSERT INTO ownloop.threads (number, agent, key, status, created_at, updated_at, head, woken, seen, due)
    SELECT n, 'bot', 'k' || n, 'open', 0, 0, 3, 0, 1, 9000000000000000 + n FROM generate_series(1, {count}) AS n;
INSERT INTO ownloop.events (thread, at, seq, kind, step, op, data)
    SELECT n, 0, seq, (ARRAY['input', 'selected', 'request'])[seq], '_1', '', '{{}}'
    FROM generate_series(1, {count}) AS n, generate_series(1, 3) AS seq;
INSERT INTO ownloop.interrupts (thread, at, expires_at, seq, decidable, kind, step, name, box, digest)
    SELECT n, n, CASE mod(n, 3) WHEN 0 THEN 9000000000000000 + n END, 3, mod(n, 10) <> 0,
        CASE mod(n, 10) WHEN 0 THEN 'event' ELSE 'approval' END, '_1',
        CASE mod(n, 10) WHEN 0 THEN 'paid' END, CASE mod(n, 10) WHEN 0 THEN '=' || n END, 'd' FROM generate_series(1, {count}) AS n;
INSERT INTO ownloop.mail (at, name, box, id, payload) SELECT 1, 'paid', '=m' || n, 'i' || n, '1' FROM generate_series(1, {count}) AS n;
INSERT INTO ownloop.dedupe (thread, seq, token) SELECT n, 1, 'd' FROM generate_series(1, {count}) AS n;
INSERT INTO ownloop.records (version, space, key, value) SELECT 1, 's', 'k' || n, '1' FROM generate_series(1, {count}) AS n;
"""
BIG = "relname IN ('threads', 'events', 'interrupts', 'mail', 'records', 'dedupe')"


async def whole_protocol(store: PostgresStore) -> None:
    """Each statement of the protocol, and each question of a worker, an inbox and a page."""
    thread, scene = await new_thread(store), Scene(store, store.clock)  # type: ignore[arg-type]  # it moves no clock
    assert (await store.runnable(["bot", "other"], 10))[0] == [thread]
    wake = await scene.wake(thread)
    await wake.begin(Draft("selected", {"arguments": {}}, wake.step()))
    await wake.begin(Draft("started", {"after": 0}, wake.step(), "run:f"))
    await store.fact(thread, wake.epoch, Draft("outcome", {"value": 1}, wake.step(), "run:f"), started=3)
    request = await wake.request()
    await wake.wait("paid", "x")
    await asyncio.to_thread(store.renew, {thread: wake.epoch}, TTL)
    await store.emit("paid", "x", "once", 1)
    await scene.decide(thread, request.seq)
    await store.message(thread, [Draft("message", {"text": "x"})], dedupe="d")
    others = [(await store.create(NewThread("aside", [Draft("input")])))[0] for _ in range(3)]
    await asyncio.gather(*(store.message(one, [Draft("message", {"text": "x"})]) for one in (thread, *others, *others)))
    await store.load(thread, 9), await store.events(thread, after=3), await store.recall(thread, wake.step(), 9), await store.recall(thread, None, 9)
    await wake.release()
    await (await scene.wake(thread)).finish()
    await store.find("bot", "k7"), await store.thread(thread), await store.threads(limit=10), await store.threads(status="open", limit=10)
    await store.interrupts(limit=10), await store.interrupts(order="urgency", limit=10), await store.interrupts(thread=thread)
    await store.interrupts(after=(thread, request.seq), limit=10), await store.pulse([thread]), await store.heads([thread])
    await store.put("s", "mine", 1), await store.get("s", "mine"), await store.records("s", "mine"), await store.drop("s", "mine")
    await scene.control(thread, "close")


async def scans_during(url: str, store: PostgresStore) -> list[tuple[Any, ...]]:
    """The big tables that were read from end to end while the protocol ran."""
    counts = f"SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = '{connect.parse(url).schema}' AND {BIG}"
    pids = [connection.pgconn.backend_pid for connection in store.connections._own.values()]
    before = dict(look(url, counts))
    await whole_protocol(store)
    await asyncio.gather(*(store._rows("SELECT pg_stat_force_next_flush()") for _ in pids))
    await asyncio.sleep(0.05)
    return [(name, count - before[name]) for name, count in look(url, counts) if count != before[name]]


async def test_nothing_that_a_worker_or_an_inbox_does_reads_a_table_from_end_to_end() -> None:
    await no_scans(postgres_server.fresh_url(), 20_000)


@pytest.mark.soak
async def test_nothing_reads_a_table_of_half_a_million_from_end_to_end() -> None:
    await no_scans(postgres_server.fresh_url(), 500_000)


async def no_scans(url: str, count: int) -> None:
    """Also on connections whose plans were made while the tables were empty."""
    store = PostgresStore(f"{url}&connections=4")
    await store.open()
    for _ in range(7):  # then plans are kept
        await whole_protocol(store)
    for analyzed in (False, True):
        if not analyzed:
            look(url, FILL.format(count=count))
        else:
            look(url, "; ".join(f"ANALYZE ownloop.{name}" for name in ("threads", "events", "interrupts", "mail", "records", "dedupe")))
        for _ in range(2):
            assert await scans_during(url, store) == []
    assert "Index" in "".join(row[0] for row in look(url, "EXPLAIN SELECT FROM ownloop.threads WHERE number = 5"))
    await store.close()
