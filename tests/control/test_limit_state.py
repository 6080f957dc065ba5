"""`node.limits_file`: what limiters remember survives the process, and a bad file harms nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.waiting import wait_until

from lbcore import RateLimitManager
from lbctl.config import Config, build
from lbctl.errors import LbctlError
from lbctl.limit_state import LimitState
from lbctl.policy import Limiters

APP = {"listen": "127.0.0.1:0", "upstreams": [{"address": "127.0.0.1:1"}], "limits": "two"}


def configuration(**changes: Any) -> Config:
    return build(
        {
            "version": 1,
            "node": {"limits": "many"},
            "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
            "limits": {
                "two": {"window": "2/1h"},
                "many": {"window": "1000/1h"},
                "short": {"window": "1/10ms"},
                "bucket": {"rate": "1/h", "burst": 2},
                "slow": {"bandwidth_out": "1kB/s"},
                "open": {"concurrent": 1},
            },
            "apps": {"web": {**APP, "app_limits": "many"}},
            "clients": {
                "alice": {"serials": [1], "apps": ["web"]},
                "bob": {"serials": [2], "apps": ["web"]},
            },
            **changes,
        }
    )


class Run:
    """One life of a process: the file is read when it is made, and written when it is closed."""

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.config = config or configuration()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.state = LimitState(path, self.config, self.say)
        self.limiters = Limiters(self.config, self.state.restore)
        self.state.start(self.limiters)

    def say(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def told(self) -> list[str]:
        return [event for event, _ in self.events]

    def client(self, name: str, limits: str = "two") -> RateLimitManager:
        found = self.limiters.client(name, "web", limits)
        assert found is not None
        return found

    def app(self) -> RateLimitManager:
        found = self.limiters.application("web")
        assert found is not None
        return found

    def close(self) -> None:
        self.state.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def entries(path: Path) -> set[tuple[str | None, str | None]]:
    """Whose entries a file has: (app, client)."""
    found = json.loads(path.read_bytes())
    assert found["v"] == 1
    return {(entry.get("app"), entry.get("client")) for entry in found["limits"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.json"


def spend(*managers: RateLimitManager) -> list[bool]:
    return [bool(manager.connection_opened()) for manager in managers]


def test_a_spent_window_is_still_spent_after_a_restart(path: Path) -> None:
    with Run(path) as first:
        assert spend(*[first.client("alice")] * 3) == [True, True, False]
        assert spend(first.client("bob")) == [True]
        assert first.told() == [], "a file that is not there yet is nothing to talk about"
    with Run(path) as second:
        assert spend(second.client("alice")) == [False]
        assert spend(*[second.client("bob")] * 2) == [True, False]
        assert second.events == [("limits.restored", {"file": str(path), "limiters": 4, "dropped": 0})]


def test_a_spent_bucket_is_still_spent(path: Path) -> None:
    with Run(path) as first:
        assert spend(*[first.client("alice", "bucket")] * 3) == [True, True, False]
    with Run(path) as second:
        assert spend(second.client("alice", "bucket")) == [False]


def test_bytes_that_were_owed_are_still_owed(path: Path) -> None:
    with Run(path) as first:
        owed = first.client("alice", "slow").data_transferred(bytes_out=100_000).wait
    with Run(path) as second:
        wait = second.client("alice", "slow").data_transferred(bytes_out=1).wait
        assert 0 < wait <= owed + 0.01
        assert wait > owed / 2


def test_the_app_and_the_node_remember_too(path: Path) -> None:
    with Run(path) as first:
        assert spend(first.app()) == [True]
    assert entries(path) == {(None, None), ("web", None)}
    config = configuration(limits={"two": {"window": "2/1h"}, "many": {"window": "1/1h"}})
    with Run(path, config) as second:
        refused = second.app().connection_opened()
        assert (refused.scope, refused.limit) == ("application", "window")


def test_who_has_not_come_back_yet_is_remembered_over_the_next_restart(path: Path) -> None:
    with Run(path) as first:
        assert spend(*[first.client("alice")] * 2) == [True, True]
    with Run(path) as second:
        spend(second.client("bob"))
    with Run(path) as third:
        assert spend(third.client("alice")) == [False]


def test_the_file_is_private_and_alone(path: Path) -> None:
    (path.parent / "limits.json.new").write_text("of a process that was killed")
    with Run(path) as run:
        spend(run.client("alice"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path.symlink_to(folder / "real.json")
    with Run(path) as run:
        spend(run.client("alice"))
    assert path.is_symlink()
    assert ("web", "alice") in entries(folder / "real.json")


def test_it_is_written_when_something_has_changed(path: Path) -> None:
    with Run(path) as run:
        wait_until(path.exists, "the first file")
        before = path.stat().st_ino
        run.close()
        assert path.stat().st_ino == before, "nothing to write"
    with Run(path) as run:
        spend(run.client("alice"))
        wait_until(lambda: ("web", "alice") in entries(path), "written while it runs")


def test_limiters_that_remember_nothing_have_no_entry(path: Path) -> None:
    with Run(path) as run:
        spend(run.client("alice"), run.client("bob", "open"))
    assert entries(path) == {(None, None), ("web", None), ("web", "alice")}


def test_what_is_forgotten_leaves_the_file(path: Path) -> None:
    with Run(path) as run:
        spend(run.client("alice"), run.client("bob", "short"))
        wait_until(lambda: path.exists() and ("web", "alice") in entries(path), "written")
        wait_until(lambda: ("web", "bob") not in entries(path), "its window is over")
        assert ("web", "alice") in entries(path)


def test_entries_of_who_is_gone_are_dropped(path: Path) -> None:
    with Run(path) as first:
        spend(first.client("alice"), first.client("bob"))
    bob: dict[str, Any] = {"bob": {"serials": [2], "apps": ["web"]}}
    with Run(path, configuration(clients=bob, apps={"web": APP}, node={})) as second:
        ((event, fields),) = second.events
        assert (event, fields["limiters"], fields["dropped"]) == ("limits.restored", 1, 3)
    assert entries(path) == {("web", "bob")}
    bob["bob"]["apps"] = ["other"]
    with Run(path, configuration(clients=bob, apps={"other": APP}, node={})) as third:
        assert third.events[0][1]["dropped"] == 1
    assert entries(path) == set()


def test_a_class_that_has_changed_takes_over_what_it_can(path: Path) -> None:
    with Run(path) as first:
        assert spend(*[first.client("alice")] * 2) == [True, True]
    with Run(path, configuration(limits={"two": {"window": "3/1h"}, "many": {"window": "9/1h"}})) as second:
        assert spend(*[second.client("alice")] * 2) == [True, False]


# ---- a file that is no use -----------------------------------------------------------------------


def spoilt(path: Path) -> dict[str, bytes]:
    """What may be found in place of the file that is there."""
    good = path.read_bytes()
    tree = json.loads(good)
    first, *rest = sorted(tree["limits"], key=len)  # the node's, without app and client

    def with_entry(**fields: Any) -> bytes:
        return json.dumps({**tree, "limits": [{**first, **fields}, *rest]}).encode()

    return {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "binary": b"\x00\xff" * 100,
        "deep": b"[" * 100_000,
        "another version": json.dumps({**tree, "v": 2}).encode(),
        "no limits": json.dumps({"v": 1}).encode(),
        "a list": b"[]",
        "an entry that is none": json.dumps({"v": 1, "limits": [7]}).encode(),
        "a number for a name": with_entry(app=7),
        "a client of no app": json.dumps({"v": 1, "limits": [{**first, "client": "a"}]}).encode(),
        "no state": json.dumps({"v": 1, "limits": [{"app": "web"}]}).encode(),
        "a key nobody knows": with_entry(more="x"),
        "no base64": with_entry(state="*"),
        "a damaged state": with_entry(state=first["state"][:-8] + "AAAAAAAA"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "cut",
        "binary",
        "deep",
        "another version",
        "no limits",
        "a list",
        "an entry that is none",
        "a number for a name",
        "a client of no app",
        "no state",
        "a key nobody knows",
        "no base64",
        "a damaged state",
    ],
)
def test_a_corrupt_file_is_told_once_and_kept_aside(path: Path, kind: str) -> None:
    with Run(path) as first:
        assert spend(*[first.client("alice")] * 2) == [True, True]
    content = spoilt(path)[kind]
    path.write_bytes(content)
    with Run(path) as second:
        ((event, fields),) = second.events
        assert event == "limits.corrupt"
        assert fields["file"] == str(path)
        assert f"kept as {path}.corrupt; limits start with full buckets" in fields["message"]
        assert spend(*[second.client("alice")] * 3) == [True, True, False]
    assert path.with_name("limits.json.corrupt").read_bytes() == content
    assert ("web", "alice") in entries(path)


def test_a_file_that_cannot_be_read_is_told_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"{}")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        run = Run(path)
    with run:
        ((event, fields),) = run.events
        assert event == "limits.corrupt"
        assert "cannot be read: Permission denied; kept as" in fields["message"]


def test_a_folder_that_is_missing_is_an_error_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "limits.json"
    with pytest.raises(LbctlError, match=r"node\.limits_file: cannot write .*: No such file or directory"):
        LimitState(path, configuration(), lambda *_, **__: None)


def test_a_folder_in_its_place_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(LbctlError, match=r"node\.limits_file: .* is not a regular file"):
        LimitState(tmp_path, configuration(), lambda *_, **__: None)


def test_a_disk_that_fails_is_told_once_and_again_when_it_works(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / "limits.json"
    with Run(path) as run:
        wait_until(path.exists, "the first file")
        folder.rename(tmp_path / "away")
        spend(run.client("alice"))
        wait_until(lambda: "limits.failed" in run.told(), "it says so")
        spend(run.client("alice"))
        folder.mkdir()
        wait_until(lambda: "limits.resumed" in run.told(), "and that it works again")
        assert run.told() == ["limits.failed", "limits.resumed"]
        assert "No such file" in run.events[0][1]["message"]
    assert ("web", "alice") in entries(path)
