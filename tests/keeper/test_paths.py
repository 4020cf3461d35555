"""Where the servers' files are, and what is refused."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mas.errors import NotReadyError
from mas.keeper import paths
from mas.keeper.paths import Account, Layout, explained, obstacle

SOMEBODY = Account("somebody", 12345, 12345)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "home")
    yield layout
    if layout.sockets.is_symlink():
        layout.sockets.unlink()
    elif layout.sockets.exists():
        layout.sockets.rmdir()


def test_a_home_is_the_same_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    spelt = [Path("home"), tmp_path / "x/../home", tmp_path / "link"]
    assert {Layout(each).mark for each in spelt} == {Layout(tmp_path / "home").mark}
    assert Layout(Path("home")).home == tmp_path.resolve() / "home"


def test_two_homes_have_two_socket_folders(tmp_path: Path) -> None:
    assert Layout(tmp_path / "a").sockets != Layout(tmp_path / "b").sockets


def test_the_sockets_have_short_paths_however_deep_the_home(tmp_path: Path) -> None:
    layout = Layout(tmp_path.joinpath(*["a-long-name-of-a-folder"] * 9))
    assert len(os.fsencode(layout.postgres_socket)) < 60


def test_a_home_is_private_but_for_the_way_of_roots_servers(layout: Layout) -> None:
    layout.make_base()
    expected = 0o711 if os.geteuid() == 0 else 0o700
    for folder in (layout.home, layout.base):
        assert folder.stat().st_mode & 0o777 == expected


def test_a_home_that_is_there_keeps_its_mode(layout: Layout) -> None:
    layout.home.mkdir()
    layout.home.chmod(0o750)
    layout.make_base()
    assert layout.home.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_home_that_is_a_file_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(NotReadyError, match="Not a directory") as caught:
        Layout(tmp_path / "home" / below).make_base()
    assert str(tmp_path / "home") in caught.value.message


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "a folder you may write")],
)
def test_what_the_system_refuses_comes_with_what_to_do(number: int, hint: str) -> None:
    with pytest.raises(NotReadyError) as caught, explained(Path("/home/of/mas")):
        raise OSError(number, os.strerror(number), "/home/of/mas/servers")
    assert os.strerror(number) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.evidence == "/home/of/mas/servers"


def test_the_socket_folder_is_private_and_emptied(layout: Layout) -> None:
    layout.make_sockets_folder(None)
    assert layout.sockets.stat().st_mode & 0o777 == 0o700
    (layout.sockets / "left behind").touch()
    layout.make_sockets_folder(None)
    assert list(layout.sockets.iterdir()) == []


def test_a_socket_folder_open_to_others_is_refused(layout: Layout) -> None:
    layout.sockets.mkdir()
    layout.sockets.chmod(0o777)
    with pytest.raises(NotReadyError, match=str(layout.sockets)) as caught:
        layout.make_sockets_folder(None)
    assert "drwxrwxrwx" in caught.value.evidence


def test_a_link_in_place_of_the_socket_folder_is_refused(
    layout: Layout, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    layout.sockets.symlink_to(tmp_path / "mine")
    with pytest.raises(NotReadyError, match=str(layout.sockets)):
        layout.make_sockets_folder(None)


def test_a_socket_folder_of_somebody_else_is_refused(layout: Layout) -> None:
    layout.sockets.mkdir(mode=0o700)
    with pytest.raises(NotReadyError, match=str(layout.sockets)):
        layout.make_sockets_folder(SOMEBODY)


def test_a_socket_path_too_long_for_the_system_is_refused(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_MAX_SOCKET_PATH_BYTES", 20)
    with pytest.raises(NotReadyError, match="the system allows 20"):
        layout.make_sockets_folder(None)


def test_the_way_is_blocked_at_the_first_folder_one_may_not_enter(
    tmp_path: Path,
) -> None:
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    outer.chmod(0o711)
    inner.chmod(0o700)
    found = obstacle(inner, SOMEBODY)
    assert found is not None
    assert inner.is_relative_to(found)
    owner = Account("owner", os.geteuid(), os.getegid())
    assert obstacle(inner, owner) is None


def test_a_group_and_everybody_have_bits_of_their_own(tmp_path: Path) -> None:
    uid, gid = os.geteuid(), os.getegid()
    tmp_path.chmod(0o701)
    assert paths.is_allowed(tmp_path, SOMEBODY, os.X_OK)
    assert not paths.is_allowed(tmp_path, Account("member", 12345, gid), os.X_OK)
    assert not paths.is_allowed(tmp_path, SOMEBODY, os.R_OK | os.X_OK)
    assert paths.is_allowed(tmp_path, Account("owner", uid, 12345), os.W_OK)


@pytest.mark.parametrize("text", ["", "short", "Z" * 64, "a" * 65, "a" * 64 + "\n"])
def test_a_damaged_password_is_none(layout: Layout, text: str) -> None:
    layout.make_base()
    layout.password.write_text(text)
    assert layout.read_password() is None


def test_a_password_is_kept_for_its_owner_only(layout: Layout) -> None:
    layout.make_base()
    assert layout.read_password() is None
    password = paths.new_password()
    layout.keep_password(password)
    assert layout.read_password() == password
    assert layout.password.stat().st_mode & 0o777 == 0o600
